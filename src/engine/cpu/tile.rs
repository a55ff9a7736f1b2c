//! What goes into a scan and what comes out.

/// The widest tile, in queries, of any instruction set.
pub(super) const WIDTH_MAX: usize = 12;

/// The most references to a panel.
pub(super) const ROWS_MAX: usize = 32;

/// What a scan stopped at, for each query of the tile.
#[derive(Clone, Debug)]
pub(super) struct Hits {
    /// Which references of the panel are not above τ, a bit each.
    pub masks: [u32; WIDTH_MAX],
    /// The sums of all references of the panel, where the mask is not 0.
    pub sums: [[f32; ROWS_MAX]; WIDTH_MAX],
}

impl Hits {
    /// Nothing yet.
    pub const NONE: Self = Self { masks: [0; WIDTH_MAX], sums: [[0.0; ROWS_MAX]; WIDTH_MAX] };
}

/// Consecutive panels against one tile of queries.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    /// `panels × dim × rows`.
    pub panels: &'a [f32],
    /// `panels × rows`: added to each reference's sum.
    pub bias: &'a [f32],
    /// `dim × width`.
    pub queries: &'a [f32],
    /// One per query.
    pub tau: &'a [f32],
    pub dim: usize,
}
