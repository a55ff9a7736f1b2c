//! Unit by unit with writing behind: computes on the caller's thread, commits on another, one unit at a time on each.

use crossbeam_channel::bounded;

use super::progress::Stop;
use crate::error::{Error, JobError};

/// Computes each unit and hands the result to `commit` on a writing thread, in order. Stops between units when asked.
///
/// # Errors
/// The first error of either; [`JobError::Interrupted`] when asked to stop before the last unit.
pub fn pipeline<T: Send>(
    units: &[u64],
    stop: &Stop,
    mut compute: impl FnMut(u64) -> Result<T, Error>,
    commit: impl FnMut(u64, T) -> Result<(), Error> + Send,
) -> Result<(), Error> {
    write_behind(commit, |send| {
        for &unit in units {
            if stop.asked() {
                return Err(JobError::Interrupted.into());
            }
            let result = compute(unit)?;
            if !send(unit, result) {
                break;
            }
        }
        Ok(())
    })
}

/// Runs `produce` with a function that hands a unit to `commit` on another thread. That function waits while the unit
/// before is being written, and says `false` when writing has failed. Everything handed over is written before this
/// returns, also when `produce` fails.
///
/// # Errors
/// Those of `commit` first, because they are the cause; then those of `produce`.
pub fn write_behind<T: Send>(
    mut commit: impl FnMut(u64, T) -> Result<(), Error> + Send,
    produce: impl FnOnce(&mut dyn FnMut(u64, T) -> bool) -> Result<(), Error>,
) -> Result<(), Error> {
    std::thread::scope(|scope| {
        let (sender, receiver) = bounded::<(u64, T)>(0);
        let writer = scope.spawn(move || {
            for (unit, result) in receiver {
                commit(unit, result)?;
            }
            Ok(())
        });
        let produced = produce(&mut |unit, result| sender.send((unit, result)).is_ok());
        drop(sender);
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.and(produced)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn units_are_committed_in_order() {
        let seen = Mutex::new(Vec::new());
        let commit = |unit, value: u64| {
            seen.lock().unwrap().push((unit, value));
            Ok(())
        };
        pipeline(&[3, 5, 9], &Stop::new(), |unit| Ok(unit * 10), commit).unwrap();
        assert_eq!(*seen.lock().unwrap(), [(3, 30), (5, 50), (9, 90)]);
    }

    #[test]
    fn an_error_of_the_writer_ends_the_run_and_is_the_one_reported() {
        let refuse = |_, (): ()| Err(JobError::Refused("disk".to_owned()).into());
        let error = pipeline(&(0..1000).collect::<Vec<_>>(), &Stop::new(), |_| Ok(()), refuse).unwrap_err();
        assert_eq!(error.to_string(), "disk");
    }

    #[test]
    fn stopping_keeps_what_was_computed() {
        let stop = Stop::new();
        let seen = Mutex::new(Vec::new());
        let compute = |unit| {
            if unit == 2 {
                stop.ask();
            }
            Ok(unit)
        };
        let commit = |unit, _| {
            seen.lock().unwrap().push(unit);
            Ok(())
        };
        let error = pipeline(&[1, 2, 3], &stop, compute, commit).unwrap_err();
        assert!(matches!(error, Error::Job(JobError::Interrupted)));
        assert_eq!(*seen.lock().unwrap(), [1, 2]);
    }
}
