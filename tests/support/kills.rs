//! Ends runs as a system does that is out of memory or power.
#![allow(clippy::unwrap_used)]

use std::process::Child;
use std::time::{Duration, Instant};

/// Kills the run as soon as `reached` says so; false when it was over before.
pub fn kill_when(mut child: Child, mut reached: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if reached() {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        assert!(began.elapsed() < Duration::from_mins(5), "the run neither ends nor gets anywhere");
        std::thread::yield_now();
    }
}
