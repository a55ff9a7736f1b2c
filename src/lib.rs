//! Finds the k nearest reference cells of every query cell when neither side fits in memory, and turns those
//! neighbours into a mapping matrix, transferred labels, numbers and presence scores, streaming from zarr to zarr.
//!
//! Read `ARCHITECTURE.md` for the floors. From the bottom up: [`metric`], [`units`] and [`error`] are the words;
//! [`block`], [`topk`] and [`matrix`] the values; [`oracle`] the naive truth; [`store`] the only code that opens
//! files and [`plan`] arithmetic alone; [`engine`] and [`route`] search, [`weights`] and [`transfer`] map;
//! [`schedule`] is the out-of-core loop, [`job`] what a user asked for, and [`cli`] the only code that prints.

pub mod block;
pub mod cli;
pub mod engine;
pub mod error;
pub mod job;
pub mod matrix;
pub mod metric;
pub mod oracle;
pub mod plan;
pub mod route;
pub mod schedule;
pub mod store;
pub mod topk;
pub mod transfer;
pub mod units;
pub mod visit;
pub mod weights;

pub use error::Error;
