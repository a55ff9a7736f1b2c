//! What can go wrong with a job as a whole.

use std::path::PathBuf;

use thiserror::Error as ThisError;

use crate::units::ByteCount;

/// A job that cannot be done, or not this way.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum JobError {
    /// A choice that is not built yet or does not fit the others: the request must change.
    #[error("{0}")]
    Refused(String),
    /// Data or a folder that this job cannot work with, or a machine that cannot do it: the request may be right.
    #[error("{0}")]
    Unfit(String),
    /// The output is there already.
    #[error("{} exists already; continue it with --resume or replace it with --overwrite", path.display())]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
    /// An output whose manifest is not what was written.
    #[error(
        "{} holds an output, but its .atlasknn/manifest.json can't be read ({why}), so it can't be continued; replace it \
         with --overwrite or choose another output",
        path.display()
    )]
    ManifestDamaged {
        /// The output.
        path: PathBuf,
        /// How it shows.
        why: String,
    },
    /// `--resume` on the work of another job.
    #[error("{} was begun by another job, so it can't be resumed: {differs}", path.display())]
    OtherJob {
        /// The output.
        path: PathBuf,
        /// What differs.
        differs: String,
    },
    /// `--resume` with an engine that need not find the same bytes as the one before.
    #[error(
        "{} was begun on {earlier}, and this run would go on with {now}, which may order neighbours at nearly equal \
         distances in another way; use the same --device, or mix both with --allow-mixed", path.display()
    )]
    OtherEngine {
        /// The output.
        path: PathBuf,
        /// What computed what is there.
        earlier: String,
        /// What would go on.
        now: String,
    },
    /// Somebody else is writing.
    #[error("{} is being written by another process; wait for it, or stop it first", path.display())]
    Locked {
        /// The output.
        path: PathBuf,
    },
    /// Too little room for what the plan will write.
    #[error("{} has {free} free and this run writes about {needs}; free some space or choose another place", path.display())]
    NoRoom {
        /// The output.
        path: PathBuf,
        /// What is free.
        free: ByteCount,
        /// What is needed.
        needs: ByteCount,
    },
    /// Stopped by the user; finished work is kept.
    #[error("interrupted; what is finished is kept: the same command with --resume continues")]
    Interrupted,
}
