//! The naive truth that every engine is tested against: short, slow, in f64.

pub mod search;
