//! Shows how a run goes, on stderr: bars on a terminal, a plain line now and then elsewhere.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::console::{self, Mark, marked};
use super::flags::Talk;
use super::text;
use crate::schedule::progress::{Observer, Stage, Step};

/// A bar's length: how finely it moves.
const BAR_STEPS: u64 = 1000;

/// How a stage stands: what `Progress` puts into words.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// All the work.
    pub total: Step,
    /// What an earlier run did of it.
    pub earlier: Step,
    /// What this run did of it.
    pub now: Step,
    /// Since the stage began in this run.
    pub seconds: f64,
}

impl Standing {
    /// The measure that shows best how far it is: pairs, because a long unit finishes its rows all at once.
    fn measure(&self) -> fn(&Step) -> u64 {
        if self.total.pairs > 0 {
            |step| step.pairs
        } else if self.total.rows > 0 {
            |step| step.rows
        } else {
            |step| step.bytes
        }
    }

    /// The share that is done, 0 to 1.
    pub fn share(&self) -> f64 {
        let of = self.measure();
        let total = of(&self.total);
        if total == 0 { 0.0 } else { ((of(&self.earlier) + of(&self.now)) as f64 / total as f64).min(1.0) }
    }

    /// Seconds left at this run's own pace.
    pub fn seconds_left(&self) -> Option<f64> {
        let of = self.measure();
        let (done, now) = (of(&self.earlier) + of(&self.now), of(&self.now));
        let left = of(&self.total).checked_sub(done)?;
        (now > 0 && self.seconds > 0.0).then(|| left as f64 / now as f64 * self.seconds)
    }

    /// `45 %, 2 min 10 s left, 3.21 Gpair/s, 120 MB/s, 900,000 of 2,000,000 rows`: what a narrow terminal cuts off is
    /// what matters least.
    pub fn words(&self) -> String {
        let mut parts = vec![format!("{:.0} %", (100.0 * self.share()).floor())];
        if let Some(left) = self.seconds_left() {
            parts.push(format!("{} left", text::duration(left)));
        }
        parts.extend(self.rates());
        if self.total.rows > 0 {
            let rows = self.earlier.rows + self.now.rows;
            parts.push(format!("{} of {} rows", text::count(rows.min(self.total.rows)), text::count(self.total.rows)));
        }
        parts.join(", ")
    }

    /// `done, 2,000,000 rows in 42 s, 3.21 Gpair/s, 120 MB/s`
    pub fn last_words(&self) -> String {
        let mut parts = vec!["done".to_owned()];
        let time = text::duration(self.seconds);
        if self.now.rows > 0 {
            parts.push(format!("{} in {time}", text::counted(self.now.rows, "row")));
        } else {
            parts.push(time);
        }
        parts.extend(self.rates());
        parts.join(", ")
    }

    fn rates(&self) -> Vec<String> {
        let mut parts = Vec::new();
        // In the first moments a rate would be noise.
        if self.seconds >= 0.2 {
            if self.now.pairs > 0 {
                parts.push(text::pair_rate(self.now.pairs as f64 / self.seconds));
            }
            if self.now.bytes > 0 {
                parts.push(text::byte_rate(self.now.bytes as f64 / self.seconds));
            }
        }
        parts
    }
}

/// Shows a run to the person who started it.
pub struct Progress {
    look: Look,
    notes: bool,
    colour: bool,
    line_every: Duration,
    sink: Mutex<Box<dyn Write + Send>>,
    running: Mutex<Vec<Running>>,
}

enum Look {
    Nothing,
    Lines,
    Bars(MultiProgress),
}

struct Running {
    stage: Stage,
    total: Step,
    earlier: Step,
    now: Step,
    begun: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Running {
    fn standing(&self) -> Standing {
        let seconds = self.begun.elapsed().as_secs_f64();
        Standing { total: self.total, earlier: self.earlier, now: self.now, seconds }
    }
}

impl Progress {
    /// As the flags and the terminal want it.
    pub fn new(talk: Talk) -> Self {
        let look = match (talk.quiet, console::is_terminal()) {
            (true, _) => Look::Nothing,
            (false, true) => Look::Bars(MultiProgress::new()),
            (false, false) => Look::Lines,
        };
        let line_every = Duration::from_secs(if talk.verbose { 2 } else { 10 });
        Self::with(look, !talk.quiet, console::colours(), line_every, Box::new(std::io::stderr()))
    }

    fn with(look: Look, notes: bool, colour: bool, line_every: Duration, sink: Box<dyn Write + Send>) -> Self {
        Self { look, notes, colour, line_every, sink: Mutex::new(sink), running: Mutex::default() }
    }

    /// Writes a line without disturbing the bars.
    pub fn say(&self, line: &str) {
        let write = || {
            let mut sink = held(&self.sink);
            // Where stderr is gone there is nobody to tell.
            let _ = writeln!(sink, "{line}");
        };
        match &self.look {
            Look::Bars(bars) => bars.suspend(write),
            Look::Nothing | Look::Lines => write(),
        }
    }

    /// Takes down what a run that ended early left standing.
    pub fn close(&self) {
        for running in held(&self.running).drain(..) {
            if let Some(bar) = running.bar {
                bar.finish_and_clear();
            }
        }
    }

    fn bar(&self) -> Option<ProgressBar> {
        let Look::Bars(bars) = &self.look else { return None };
        let template = "{prefix:>8} [{bar:16}] {wide_msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Some(bars.add(ProgressBar::new(BAR_STEPS)).with_style(style.progress_chars("=> ")))
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a bar stands for this share.
fn bar_position(share: f64) -> u64 {
    let position = (share * BAR_STEPS as f64).clamp(0.0, BAR_STEPS as f64);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    {
        position as u64
    }
}

impl Observer for Progress {
    fn begin(&self, stage: Stage, total: Step, done: Step) {
        if matches!(self.look, Look::Nothing) {
            return;
        }
        let now = Instant::now();
        let bar = self.bar();
        if let Some(bar) = &bar {
            bar.set_prefix(stage.name());
        }
        let running = Running { stage, total, earlier: done, now: Step::default(), begun: now, told: now, bar };
        if running.bar.is_none() {
            let mut line = format!("{}: begins", stage.name());
            if total.rows > 0 {
                line = format!("{line}, {}", text::counted(total.rows, "row"));
            }
            if done.rows > 0 {
                line = format!("{line}, {} of them done before", text::count(done.rows));
            }
            self.say(&line);
        }
        held(&self.running).push(running);
    }

    fn advance(&self, stage: Stage, step: Step) {
        if matches!(self.look, Look::Nothing) {
            return;
        }
        let mut line = None;
        if let Some(running) = held(&self.running).iter_mut().find(|r| r.stage == stage) {
            running.now.rows += step.rows;
            running.now.pairs += step.pairs;
            running.now.bytes += step.bytes;
            let pause = if running.bar.is_some() { Duration::from_millis(100) } else { self.line_every };
            if running.told.elapsed() >= pause {
                running.told = Instant::now();
                let standing = running.standing();
                match &running.bar {
                    Some(bar) => {
                        bar.set_position(bar_position(standing.share()));
                        bar.set_message(standing.words());
                    }
                    None => line = Some(format!("{}: {}", stage.name(), standing.words())),
                }
            }
        }
        if let Some(line) = line {
            self.say(&line);
        }
    }

    fn end(&self, stage: Stage) {
        let over = {
            let mut running = held(&self.running);
            running.iter().position(|r| r.stage == stage).map(|place| running.remove(place))
        };
        if let Some(over) = over {
            if let Some(bar) = &over.bar {
                bar.finish_and_clear();
            }
            self.say(&format!("{}: {}", stage.name(), over.standing().last_words()));
        }
    }

    fn note(&self, message: &str) {
        if self.notes {
            self.say(message);
        }
    }

    fn warn(&self, message: &str) {
        self.say(&marked(Mark::Warning, message, self.colour));
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
