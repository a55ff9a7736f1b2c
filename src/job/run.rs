//! What every job has while it runs: threads, counters, the clock, and who listens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::request::{Outcome, Seconds, Within};
use crate::error::{Error, JobError};
use crate::schedule::progress::{Observer, Stop};
use crate::schedule::{Clock, Part};
use crate::store::IoCounters;
use crate::units::ByteCount;

/// Budget, threads and counters of one job.
pub struct Run<'a> {
    /// The threads.
    pub pool: Arc<rayon::ThreadPool>,
    /// How many.
    pub threads: usize,
    /// Host memory.
    pub budget: ByteCount,
    /// Bytes read and written.
    pub io: Arc<IoCounters>,
    /// Where time goes.
    pub clock: Clock,
    /// Who listens.
    pub observer: &'a dyn Observer,
    /// Who may ask to stop.
    pub stop: &'a Stop,
    began: Instant,
}

impl<'a> Run<'a> {
    /// Starts the threads and the clock.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn begin(within: &Within, observer: &'a dyn Observer, stop: &'a Stop) -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let threads = within.threads.unwrap_or(cores).max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("atlasknn-{i}"))
            .build()
            .map_err(|error| JobError::Unfit(format!("cannot start {threads} threads: {error}; lower --threads")))?;
        Ok(Self {
            pool: Arc::new(pool),
            threads,
            budget: within.host_memory.unwrap_or_else(default_budget),
            io: IoCounters::new(),
            clock: Clock::default(),
            observer,
            stop,
            began: Instant::now(),
        })
    }

    /// The same run with a clock that begins at zero, for work that is told apart from the rest.
    #[must_use]
    pub fn with_own_clock(&self) -> Run<'a> {
        Run { pool: Arc::clone(&self.pool), io: Arc::clone(&self.io), clock: Clock::default(), ..*self }
    }

    /// Seconds by stage so far.
    #[must_use]
    pub fn seconds(&self) -> Seconds {
        Seconds {
            read: self.clock.seconds(Part::Read),
            search: self.clock.seconds(Part::Search),
            map: self.clock.seconds(Part::Map),
            write: self.clock.seconds(Part::Write),
            total: self.elapsed().as_secs_f64(),
        }
    }

    /// Wall time so far.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Puts the counters into the outcome of a run.
    pub fn fill(&self, outcome: &mut Outcome) {
        outcome.seconds = self.seconds();
        outcome.bytes_read = self.io.read();
        outcome.bytes_written = self.io.written();
        outcome.peak_memory_bytes = peak_memory_bytes();
    }
}

/// A quarter of the machine's memory, or of the container's where that is less.
#[must_use]
pub fn default_budget() -> ByteCount {
    let system =
        System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    let machine = system.total_memory();
    let container = system.cgroup_limits().map_or(machine, |limits| limits.total_memory);
    ByteCount(machine.min(container).max(1 << 30) / 4)
}

/// The processor's name.
#[must_use]
pub fn processor_name() -> String {
    let mut system = System::new();
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    system
        .cpus()
        .first()
        .map(|cpu| cpu.brand().trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Peak resident memory of this process, where the system tells.
#[must_use]
pub fn peak_memory_bytes() -> Option<u64> {
    let status = crate::store::process_status()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
