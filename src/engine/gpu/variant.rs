//! Variants of the distance tile: which there are, and what each needs of an adapter.

use super::device::Adapter;
use crate::error::EngineError;

/// One way to compute the distance tile. All other passes are the same in every variant, so all find the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name for `--device-variant`.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Queries and references of one invocation, for tiles in f32.
    pub(super) per_invocation: (usize, usize),
    /// Most dimensions of a slab.
    pub(super) slab_max: usize,
    /// The side of its cooperative matrices, where it has any.
    pub(super) matrix: Option<u32>,
}

/// All variants, the most portable first.
pub const VARIANTS: [Variant; 4] = [
    Variant {
        name: "portable",
        about: "f32, 64 × 128 pairs to a workgroup, 12 KiB; needs nothing optional",
        per_invocation: (4, 8),
        slab_max: 16,
        matrix: None,
    },
    Variant {
        name: "wide",
        about: "f32, 128 × 128 pairs to a workgroup, 16 KiB",
        per_invocation: (8, 8),
        slab_max: 16,
        matrix: None,
    },
    Variant {
        name: "cooperative",
        about: "f16 products on cooperative matrices as a filter with a proven bound; everything that is kept is f32",
        per_invocation: (8, 8),
        slab_max: 16,
        matrix: Some(16),
    },
    Variant {
        name: "cooperative8",
        about: "the same on matrices of 8 × 8, as Apple has them",
        per_invocation: (8, 8),
        slab_max: 16,
        matrix: Some(8),
    },
];

impl Variant {
    /// The variant of this name.
    ///
    /// # Errors
    /// [`EngineError::Variant`] when there is none or the adapter cannot run it.
    pub fn named(name: &str, adapter: &Adapter) -> Result<Self, EngineError> {
        let runs: Vec<Self> = Self::of(adapter);
        if let Some(variant) = runs.iter().find(|v| v.name == name) {
            return Ok(*variant);
        }
        let exists = VARIANTS.iter().any(|v| v.name == name);
        let why = if exists { "this adapter cannot run" } else { "does not exist" };
        let known = runs.iter().map(|v| v.name).collect::<Vec<_>>().join(", ");
        Err(EngineError::Variant { found: name.to_owned(), why, adapter: adapter.name.clone(), known })
    }

    /// Those an adapter can run, the most portable first.
    #[must_use]
    pub fn of(adapter: &Adapter) -> Vec<Self> {
        VARIANTS.into_iter().filter(|variant| adapter.runs(variant)).collect()
    }

    /// The one to take where nobody said: cooperative matrices where there are any, and otherwise what runs everywhere.
    #[must_use]
    pub fn preferred(adapter: &Adapter) -> Self {
        let cooperative = Self::of(adapter).into_iter().find(Self::is_cooperative);
        cooperative.unwrap_or(VARIANTS[0])
    }

    pub(super) fn is_cooperative(&self) -> bool {
        self.matrix.is_some()
    }

    pub(super) fn features(&self) -> wgpu::Features {
        if self.is_cooperative() {
            wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
                | wgpu::Features::SHADER_F16
                | wgpu::Features::SUBGROUP
                | wgpu::Features::SUBGROUP_BARRIER
        } else {
            wgpu::Features::empty()
        }
    }

    /// Memory that its workgroups share, bytes.
    pub(super) fn workgroup_bytes(&self) -> u64 {
        let (queries, references) = self.per_invocation;
        let values = 16 * (queries + references) * self.slab_max;
        4 * values as u64
    }

    /// Queries of a tile.
    pub(super) fn queries(&self) -> usize {
        16 * self.per_invocation.0
    }

    /// References of a tile.
    pub(super) fn references(&self) -> usize {
        16 * self.per_invocation.1
    }

    /// Fragments to 16 rows of so many dimensions, and the column where what they carry besides begins.
    pub(super) fn fragments(dim: usize) -> (usize, usize) {
        let extra = dim.next_multiple_of(2);
        ((extra + 4).div_ceil(16), extra)
    }

    /// Slabs of a row, and dimensions of each: as few slabs as possible, as even as possible.
    pub(super) fn slabs(&self, dim: usize) -> (usize, usize) {
        let slabs = dim.div_ceil(self.slab_max);
        (slabs, dim.div_ceil(slabs))
    }
}
