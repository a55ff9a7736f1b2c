//! Claims about how a run is put into words.

use std::sync::Arc;

use super::*;

const fn step(rows: u64, pairs: u64, bytes: u64) -> Step {
    Step { rows, pairs, bytes }
}

/// A sink whose text a test can read.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        held(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn shown(look: Look, notes: bool, line_every: Duration, run: impl FnOnce(&Progress)) -> Vec<String> {
    let paper = Paper::default();
    let progress = Progress::with(look, notes, false, line_every, Box::new(paper.clone()));
    run(&progress);
    let bytes = held(&paper.0).clone();
    String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
}

fn a_run(progress: &Progress) {
    progress.begin(Stage::Search, step(300, 30_000, 0), step(100, 10_000, 0));
    progress.note("100 rows are reused");
    progress.warn("k is larger than the reference");
    progress.advance(Stage::Search, step(100, 10_000, 0));
    progress.advance(Stage::Search, step(100, 10_000, 0));
    progress.end(Stage::Search);
}

#[test]
fn words_say_how_far_how_fast_and_how_long_still() {
    let half_way = Standing {
        total: step(2_000_000, 40_000_000_000, 0),
        earlier: step(500_000, 10_000_000_000, 0),
        now: step(500_000, 10_000_000_000, 1_000_000_000),
        seconds: 10.0,
    };
    assert_eq!(
        half_way.words(),
        "50 %, 20 s left, 1.00 Gpair/s, 100 MB/s, 1,000,000 of 2,000,000 rows",
        "time left follows this run's pace, not that of the rows done before"
    );
    assert_eq!(half_way.last_words(), "done, 500,000 rows in 10 s, 1.00 Gpair/s, 100 MB/s");
}

#[test]
fn a_long_unit_moves_by_its_pairs_although_no_row_is_finished() {
    let standing =
        Standing { total: step(1000, 1_000_000, 0), earlier: step(0, 0, 0), now: step(0, 250_000, 0), seconds: 1.0 };
    assert_eq!((standing.share(), standing.seconds_left()), (0.25, Some(3.0)));
}

#[test]
fn nothing_to_do_and_nothing_done_yet_are_fine() {
    let empty = Standing { total: step(0, 0, 0), earlier: step(0, 0, 0), now: step(0, 0, 0), seconds: 0.0 };
    assert_eq!((empty.words(), empty.last_words()), ("0 %".to_owned(), "done, 0.0 s".to_owned()));
    let fresh = Standing { total: step(10, 0, 0), ..empty };
    assert_eq!(fresh.words(), "0 %, 0 of 10 rows");
    let more_than_said = Standing { now: step(20, 0, 0), ..fresh };
    assert_eq!(more_than_said.words(), "100 %, 10 of 10 rows");
}

#[test]
fn lines_come_at_the_borders_and_not_more_often_than_asked() {
    let lines = shown(Look::Lines, true, Duration::from_hours(1), a_run);
    assert_eq!(lines[0], "search: begins, 300 rows, 100 of them done before");
    assert_eq!(lines[1..3], ["100 rows are reused", "warning: k is larger than the reference"]);
    assert!(lines[3].starts_with("search: done, 200 rows in "), "{lines:?}");
    assert_eq!(lines.len(), 4, "{lines:?}");
    let lines = shown(Look::Lines, true, Duration::ZERO, a_run);
    assert!(lines[3].starts_with("search: 66 %, ") && lines[4].starts_with("search: 100 %"), "{lines:?}");
}

#[test]
fn quiet_leaves_the_warnings_only() {
    let lines = shown(Look::Nothing, false, Duration::ZERO, a_run);
    assert_eq!(lines, ["warning: k is larger than the reference"]);
}

#[test]
fn stages_may_overlap() {
    let lines = shown(Look::Lines, true, Duration::from_hours(1), |progress| {
        progress.begin(Stage::Search, step(1, 1, 0), Step::default());
        progress.begin(Stage::Names, step(2, 0, 0), Step::default());
        progress.advance(Stage::Names, step(2, 0, 0));
        progress.end(Stage::Search);
        progress.end(Stage::Names);
        progress.end(Stage::Names);
    });
    assert!(lines[2].starts_with("search: done") && lines[3].starts_with("names: done, 2 rows"), "{lines:?}");
    assert_eq!(lines.len(), 4, "{lines:?}");
}
