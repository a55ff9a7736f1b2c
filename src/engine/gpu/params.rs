//! What passes are told: the twins of the `…Params` structs of the shaders, compared with them field by field in a test.

use bytemuck::{Pod, Zeroable};

/// `pack.wgsl`
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct PackParams {
    pub rows: u32,
    pub slots: u32,
    pub dim: u32,
    pub width: u32,
    pub channels: u32,
    pub exponent: i32,
    pub gamma: f32,
    pub shift: f32,
    pub zero_share: f32,
    pub pad0: u32,
    pub pad1: u32,
    pub pad2: u32,
}

/// `tile.wgsl`
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct TileParams {
    pub jobs: u32,
    pub slabs: u32,
    pub room: u32,
    pub first_row: u32,
}

/// `merge.wgsl`
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct MergeParams {
    pub width: u32,
    pub k: u32,
    pub room: u32,
    pub first_row: u32,
    pub queries: u32,
    pub listed: u32,
    pub ranged: u32,
    pub overflow_at: u32,
    pub first_position: u32,
    pub last_position: u32,
    pub first_tile: u32,
    pub tiles: u32,
    pub stride: u32,
    pub first_reference: u32,
    pub last_reference: u32,
    pub tile: u32,
    pub own_row: u32,
    pub share: f32,
    pub again: u32,
    pub tops_from: u32,
    pub plane: u32,
    pub pad0: u32,
    pub pad1: u32,
    pub pad2: u32,
}

impl MergeParams {
    /// What merges do that end the search of queries which had overflowed.
    pub fn again() -> Self {
        Self { again: 1, ..Self::default() }
    }
}

/// `gather.wgsl`
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct GatherParams {
    pub slots: u32,
    pub channels: u32,
    pub pad0: u32,
    pub pad1: u32,
}

/// `horizon.wgsl`
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct HorizonParams {
    pub queries: u32,
    pub k: u32,
    pub plane: u32,
    pub nearest: u32,
    pub times: f32,
    pub squares: u32,
    pub pad0: u32,
    pub pad1: u32,
}

/// `decode.wgsl`
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct DecodeParams {
    pub kind: u32,
    pub rows: u32,
    pub first: u32,
    pub dim: u32,
    pub width: u32,
    pub codes: u32,
    pub pad0: u32,
    pub pad1: u32,
}

/// `pack_half.wgsl`
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct HalfParams {
    pub slots: u32,
    pub dim: u32,
    pub channels: u32,
    pub blocks: u32,
    pub gamma: f32,
    pub rows: u32,
    pub pad0: u32,
    pub pad1: u32,
}

/// `columns.wgsl`
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct ColumnsParams {
    pub slots: u32,
    pub first: u32,
    pub blocks: u32,
    pub pad0: u32,
}

/// `tile_half.wgsl`
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct HalfTileParams {
    pub jobs: u32,
    pub room: u32,
    pub first_row: u32,
    pub channels: u32,
    pub rows: u32,
    pub listed: u32,
    pub grouped: u32,
    pub pad0: u32,
}

/// One entry of `jobs` in `tile.wgsl`: a tile of queries against a run of tiles of references.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Job {
    pub query_tile: u32,
    pub first_position: u32,
    pub last_position: u32,
    pub first_tile: u32,
    pub tiles: u32,
    pub stride: u32,
    pub first_reference: u32,
    pub last_reference: u32,
}

/// A row's entry in `marks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Mark {
    pub id_low: u32,
    pub id_high: u32,
    pub group: u32,
    /// Exponent and flags.
    pub flags: u32,
}
