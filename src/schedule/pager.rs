//! Brings reference partitions in, one ahead of the engine, and keeps those that stay.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::{Clock, Part};
use crate::block::{RowBlock, RowIds};
use crate::engine::Partition;
use crate::error::Error;
use crate::store::Source;

/// The references, as the scheduler sees them.
pub struct Pager<'a> {
    source: &'a dyn Source,
    ranges: &'a [Range<u64>],
    groups: Option<&'a [u32]>,
    /// `None` when partitions do not stay.
    held: Option<Vec<Option<Arc<Partition>>>>,
}

impl<'a> Pager<'a> {
    /// Partitions of `source` at these ranges; `keep` them once they are read.
    #[must_use]
    pub fn new(source: &'a dyn Source, ranges: &'a [Range<u64>], groups: Option<&'a [u32]>, keep: bool) -> Self {
        Self { source, ranges, groups, held: keep.then(|| vec![None; ranges.len()]) }
    }

    /// Calls `visit` with each of the `needed` partitions, in that order, reading the next one meanwhile.
    /// `visit` says whether to go on.
    ///
    /// # Errors
    /// The first error of a read or of `visit`.
    pub fn each(
        &mut self,
        needed: &[usize],
        pool: &rayon::ThreadPool,
        clock: &Clock,
        mut visit: impl FnMut(usize, &Arc<Partition>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let held = |index: usize| self.held.as_ref().and_then(|held| held[index].clone());
        let missing: Vec<usize> = needed.iter().copied().filter(|&index| held(index).is_none()).collect();
        let (source, ranges, groups) = (self.source, self.ranges, self.groups);
        std::thread::scope(|scope| {
            // No room in the queue: one partition is searched and one is read, as the plan counts.
            let (sender, receiver) = bounded(0);
            if !missing.is_empty() {
                scope.spawn(move || {
                    for index in missing {
                        let read = clock.time(Part::Read, || read(source, &ranges[index], groups, pool));
                        // The receiver is gone when the visits ended early.
                        if sender.send(read).is_err() {
                            return;
                        }
                    }
                });
            }
            for &index in needed {
                let part = match self.held.as_ref().and_then(|held| held[index].clone()) {
                    Some(part) => part,
                    None => receive(&receiver)?,
                };
                if let Some(held) = &mut self.held {
                    held[index] = Some(Arc::clone(&part));
                }
                if !visit(index, &part)? {
                    break;
                }
            }
            drop(receiver);
            Ok(())
        })
    }
}

fn receive(receiver: &Receiver<Result<Arc<Partition>, Error>>) -> Result<Arc<Partition>, Error> {
    receiver.recv().unwrap_or_else(|_| {
        Err(crate::error::JobError::Unfit("the thread that reads references ended early".to_owned()).into())
    })
}

fn read(
    source: &dyn Source,
    rows: &Range<u64>,
    groups: Option<&[u32]>,
    pool: &rayon::ThreadPool,
) -> Result<Arc<Partition>, Error> {
    let block = read_block(source, rows, pool)?;
    let row = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
    let groups = groups.map(|groups| groups[row(rows.start)..row(rows.end)].to_vec());
    Ok(Partition::with(block, groups, None))
}

/// Reads consecutive rows of a source; decoding runs on the pool.
///
/// # Errors
/// Those of [`Source::read`].
pub fn read_block(source: &dyn Source, rows: &Range<u64>, pool: &rayon::ThreadPool) -> Result<RowBlock, Error> {
    let ids = RowIds::Range(rows.clone());
    let mut values = vec![0.0; ids.len() * source.dim()];
    pool.install(|| source.read(std::slice::from_ref(rows), &mut values))?;
    Ok(RowBlock::new(ids, source.dim(), values)?)
}
