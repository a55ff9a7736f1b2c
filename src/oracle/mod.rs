//! The naive truth that every engine is tested against: short, slow, in f64. And beside it a twin of every shader, of the
//! same name: what the shader computes for one row, pair or query, in f32 and step by step as it does, on plain values.

pub mod columns;
pub mod decode;
pub mod exact;
pub mod gather;
pub mod horizon;
pub mod merge;
pub mod numbers;
pub mod pack;
pub mod pack_half;
pub mod search;
pub mod tile;
pub mod tile_half;
