//! The rows of one source, block by block, the next one read while one is worked on.

use std::ops::Range;

use crossbeam_channel::bounded;

use super::pager::read_block;
use super::{Clock, Part};
use crate::block::RowBlock;
use crate::error::Error;
use crate::store::Source;

/// Calls `each` with consecutive blocks of at most so many rows, in order. Two blocks are held at a time.
///
/// # Errors
/// The first error of a read or of `each`.
pub fn stream(
    source: &dyn Source,
    rows: Range<u64>,
    block_rows: u64,
    pool: &rayon::ThreadPool,
    clock: &Clock,
    mut each: impl FnMut(RowBlock) -> Result<(), Error>,
) -> Result<(), Error> {
    let step = block_rows.max(1);
    let blocks = |from: u64| (from < rows.end).then(|| from..rows.end.min(from + step));
    std::thread::scope(|scope| {
        // No room in the queue: what is read next is all that is held beside what is worked on.
        let (sender, receiver) = bounded(0);
        scope.spawn(move || {
            let mut next = blocks(rows.start);
            while let Some(block) = next {
                let read = clock.time(Part::Read, || read_block(source, &block, pool));
                let failed = read.is_err();
                // The receiver is gone when the work ended early.
                if sender.send(read).is_err() || failed {
                    return;
                }
                next = blocks(block.end);
            }
        });
        for block in receiver {
            each(block?)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RowIds;
    use crate::error::JobError;
    use crate::store::memory::MemorySource;

    fn source(rows: u16) -> MemorySource {
        MemorySource::from_f32("m", 1, (0..rows).map(f32::from).collect()).unwrap()
    }

    fn pool() -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()
    }

    #[test]
    fn blocks_come_in_order_and_cover_the_rows() {
        for (rows, range, step) in [(10, 0..10, 3), (10, 4..10, 100), (10, 5..5, 2), (0, 0..0, 1), (7, 0..7, 7)] {
            let mut seen = Vec::new();
            stream(&source(rows), range.clone(), step, &pool(), &Clock::default(), |block| {
                assert!(block.rows() as u64 <= step && block.rows() > 0);
                let RowIds::Range(ids) = block.ids() else { panic!("a run of rows") };
                assert_eq!(
                    block.values().iter().map(|v| f64::from(*v)).collect::<Vec<_>>(),
                    ids.clone().map(|id| id as f64).collect::<Vec<_>>()
                );
                seen.extend(ids.clone());
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, range.collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        let bad = MemorySource::from_f32("m", 1, vec![0.0, 1.0, f32::NAN, 3.0]).unwrap();
        let mut seen = 0;
        let mut run = |source: &MemorySource, stop_at: u64| {
            stream(source, 0..source.rows(), 1, &pool(), &Clock::default(), |_| {
                seen += 1;
                if seen == stop_at { Err(JobError::Interrupted.into()) } else { Ok(()) }
            })
        };
        assert!(run(&bad, 99).unwrap_err().to_string().contains("row 2"));
        assert!(matches!(run(&source(9), 5).unwrap_err(), Error::Job(JobError::Interrupted)));
        assert_eq!(seen, 5);
    }
}
