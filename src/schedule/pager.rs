//! Brings reference partitions in, one ahead of the engine, and keeps those that stay.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::{Clock, Part};
use crate::block::codes::CodedRows;
use crate::block::{RowBlock, RowIds, Rows};
use crate::engine::{NO_GROUP, Partition};
use crate::error::Error;
use crate::route::Route;
use crate::store::Source;

/// Reads the ids of reference rows that are stored in another order than their own.
pub type ReadIds<'a> = &'a (dyn Fn(Range<u64>) -> Result<Vec<u64>, Error> + Sync);

/// The references: rows, their ids, their groups.
#[derive(Clone, Copy)]
pub struct References<'a> {
    /// The rows.
    pub source: &'a dyn Source,
    /// Their ids; `None` where these are their places.
    pub ids: Option<ReadIds<'a>>,
    /// Groups by id, for leave-one-group-out.
    pub groups: Option<&'a [u32]>,
}

/// The references, as the scheduler sees them.
pub struct Pager<'a> {
    references: References<'a>,
    /// By their first row; `None` when partitions do not stay.
    held: Option<HashMap<u64, Arc<Partition>>>,
}

impl<'a> Pager<'a> {
    /// Partitions of these references; `keep` them once they are read.
    #[must_use]
    pub fn new(references: References<'a>, keep: bool) -> Self {
        Self { references, held: keep.then(HashMap::new) }
    }

    /// Calls `visit` with each partition of a route, in order, reading the next one meanwhile. `visit` says whether to
    /// go on.
    ///
    /// # Errors
    /// The first error of a read or of `visit`.
    pub fn each(
        &mut self,
        route: &dyn Route,
        pool: &rayon::ThreadPool,
        clock: &Clock,
        mut visit: impl FnMut(usize, &Arc<Partition>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let key = |partition: usize| route.rows(partition)[0].start;
        let all = 0..route.partitions();
        let is_held = |partition: &usize| self.held.as_ref().is_some_and(|held| held.contains_key(&key(*partition)));
        let missing: Vec<usize> = all.clone().filter(|partition| !is_held(partition)).collect();
        let references = self.references;
        std::thread::scope(|scope| {
            // No room in the queue: one partition is searched and one is read, as the plan counts.
            let (sender, receiver) = bounded(0);
            if !missing.is_empty() {
                scope.spawn(move || {
                    for partition in missing {
                        let read = clock.time(Part::Read, || read(references, route.rows(partition), pool));
                        // The receiver is gone when the visits ended early.
                        if sender.send(read).is_err() {
                            return;
                        }
                    }
                });
            }
            for partition in all {
                let held = self.held.as_ref().and_then(|held| held.get(&key(partition)).cloned());
                let part = match held {
                    Some(part) => part,
                    None => receive(&receiver)?,
                };
                if let Some(held) = &mut self.held {
                    held.insert(key(partition), Arc::clone(&part));
                }
                if !visit(partition, &part)? {
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

fn read(references: References<'_>, rows: &[Range<u64>], pool: &rayon::ThreadPool) -> Result<Arc<Partition>, Error> {
    let ids = match (references.ids, rows) {
        (None, [rows]) => RowIds::Range(rows.clone()),
        (None, rows) => RowIds::List(rows.iter().cloned().flatten().collect()),
        (Some(ids), rows) => {
            let mut rows = rows.iter().cloned();
            // Of one run they are taken as they come: a copy of many is not in the plan.
            let mut all = rows.next().map_or(Ok(Vec::new()), ids)?;
            for rows in rows {
                all.extend(ids(rows)?);
            }
            RowIds::List(all)
        }
    };
    let group = |groups: &[u32], id: u64| {
        let group = usize::try_from(id).ok().and_then(|id| groups.get(id));
        group.copied().unwrap_or(NO_GROUP)
    };
    let groups = references.groups.map(|groups| (0..ids.len()).map(|row| group(groups, ids.get(row).0)).collect());
    Ok(Partition::with(read_kept(references.source, rows, ids, pool)?, groups, None))
}

/// Reads rows of a source that have these ids as they are searched: as codes, where the source keeps those.
///
/// # Errors
/// Those of [`Source::read`].
pub fn read_kept(
    source: &dyn Source,
    rows: &[Range<u64>],
    ids: RowIds,
    pool: &rayon::ThreadPool,
) -> Result<Rows, Error> {
    match pool.install(|| source.read_codes(rows))? {
        Some(codes) => Ok(CodedRows::new(ids, rows, source.dim(), codes)?.into()),
        None => Ok(read_rows(source, rows, ids, pool)?.into()),
    }
}

/// Reads consecutive rows of a source; decoding runs on the pool.
///
/// # Errors
/// Those of [`Source::read`].
pub fn read_block(source: &dyn Source, rows: &Range<u64>, pool: &rayon::ThreadPool) -> Result<RowBlock, Error> {
    read_rows(source, std::slice::from_ref(rows), RowIds::Range(rows.clone()), pool)
}

/// Reads rows of a source that have these ids; decoding runs on the pool.
///
/// # Errors
/// Those of [`Source::read`].
pub fn read_rows(
    source: &dyn Source,
    rows: &[Range<u64>],
    ids: RowIds,
    pool: &rayon::ThreadPool,
) -> Result<RowBlock, Error> {
    let mut values = vec![0.0; ids.len() * source.dim()];
    pool.install(|| source.read(rows, &mut values))?;
    Ok(RowBlock::new(ids, source.dim(), values)?)
}
