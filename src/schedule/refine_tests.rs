//! Claims about exact distances for what a compressed index found.

use super::*;
use crate::error::StoreError;
use crate::metric::EngineKind;
use crate::oracle::search as oracle;
use crate::store::FloatType;
use crate::store::counted::Counted;
use crate::store::memory::MemorySource;

const DIM: usize = 5;

fn values(rows: usize, seed: usize) -> Vec<f32> {
    (0..rows * DIM).map(|i| ((i * 7919 + seed * 104_729) % 1_009) as f32 / 100.0).collect()
}

fn block(rows: usize, seed: usize) -> RowBlock {
    RowBlock::new(RowIds::Range(0..rows as u64), DIM, values(rows, seed)).unwrap()
}

/// Candidates in an order that has nothing to do with their distances: every third row, and padding.
fn candidates(rows: usize, references: u64) -> TopK {
    let mut top = TopK::empty(rows, K::new(40).unwrap());
    for row in 0..rows {
        let ids = (row as u64 % 3..references).step_by(3);
        let found: Vec<(f32, u64)> = ids.take(33).enumerate().map(|(i, id)| (i as f32, id)).collect();
        top.set_row(row, &found);
    }
    top
}

fn means<'a>(pool: &'a rayon::ThreadPool, clock: &'a Clock, stop: &'a Stop) -> Means<'a> {
    Means { pool, clock, stop }
}

fn done(refined: Result<Refined, Error>) -> Vec<TopK> {
    match refined.unwrap() {
        Refined::Done(tops) => tops,
        Refined::Stopped(_) => panic!("nobody asked it to stop"),
    }
}

/// Asks to stop once something was read.
#[derive(Debug)]
struct Asking<'a>(MemorySource, &'a Stop);

impl Source for Asking<'_> {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn rows(&self) -> u64 {
        self.0.rows()
    }
    fn dim(&self) -> usize {
        self.0.dim()
    }
    fn dtype(&self) -> FloatType {
        self.0.dtype()
    }
    fn chunk_rows(&self) -> u64 {
        self.0.chunk_rows()
    }
    fn stored_bytes(&self) -> u64 {
        self.0.stored_bytes()
    }
    fn scratch_bytes(&self) -> u64 {
        self.0.scratch_bytes()
    }
    fn read(&self, rows: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
        self.1.ask();
        self.0.read(rows, out)
    }
    fn read_f64(&self, rows: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
        self.0.read_f64(rows, out)
    }
    fn fingerprint(&self) -> Result<serde_json::Value, StoreError> {
        self.0.fingerprint()
    }
}

#[test]
fn a_run_that_is_asked_to_stop_does_so_between_windows_and_goes_on_to_the_same() {
    let (queries, references) = (block(70, 1), block(99, 2));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let (clock, never, asked) = (Clock::default(), Stop::new(), Stop::new());
    let source = || MemorySource::from_f32("r", DIM, references.values().to_vec()).unwrap();
    let (plain, asking) = (source(), Asking(source(), &asked));
    let refine = |references| Refine { references, metric: Metric::Euclidean, k: K::new(6).unwrap(), window_rows: 20 };
    let found = |top| vec![Candidates { first: 0, top }];
    let all = candidates(70, 99);
    let whole = done(refine(&plain).run(&queries, found(all.clone()), means(&pool, &clock, &never)));
    let given = all.clone();
    let place = given.ids().as_ptr();
    let stopped = refine(&asking).run(&queries, found(given), means(&pool, &clock, &asked)).unwrap();
    let Refined::Stopped(mut left) = stopped else { panic!("it was asked to stop after the first window") };
    let left = left.remove(0);
    assert_eq!((left.rows(), left.k()), (70, 40), "every candidate is handed back");
    assert_eq!(left.ids().as_ptr(), place, "and none was copied");
    assert_ne!(left, all, "a window was measured");
    assert_eq!(done(refine(&plain).run(&queries, found(left), means(&pool, &clock, &never))), whole);
}

#[test]
fn candidates_become_the_nearest_of_them_by_exact_distance() {
    let (queries, references) = (block(70, 1), block(99, 2));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for metric in Metric::ALL {
        let truth = oracle::search(metric, &queries, &references, |q, r| r % 3 == q % 3);
        for window_rows in [1, 7, 64, 1_000] {
            let source = Counted::new(std::sync::Arc::new(
                MemorySource::from_f32("r", DIM, references.values().to_vec()).unwrap(),
            ));
            let refine = Refine { references: &source, metric, k: K::new(6).unwrap(), window_rows };
            // Two units of one block.
            let all = candidates(70, 99);
            let parts = [0..30, 30..70].map(|rows| Candidates { first: rows.start, top: all.slice(rows) });
            let found = done(refine.run(&queries, parts.into(), means(&pool, &Clock::default(), &Stop::new())));
            let found = found[0].clone().followed_by(&found[1]);
            oracle::agrees(&found, &truth, EngineKind::Cpu).unwrap_or_else(|e| panic!("{metric}: {e}"));
            assert!(source.rows_read() <= 99, "{} rows were read", source.rows_read());
        }
    }
}

#[test]
fn only_what_was_found_is_read() {
    let queries = block(1, 1);
    let source = Counted::new(std::sync::Arc::new(MemorySource::from_f32("r", DIM, values(10_000, 2)).unwrap()));
    let mut top = TopK::empty(1, K::new(4).unwrap());
    top.set_row(0, &[(0.0, 9_999), (1.0, 3), (2.0, 5_000), (3.0, 20)]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let refine = Refine { references: &source, metric: Metric::Euclidean, k: K::new(2).unwrap(), window_rows: 2_000 };
    done(refine.run(&queries, vec![Candidates { first: 0, top }], means(&pool, &Clock::default(), &Stop::new())));
    assert_eq!(source.rows_read(), 18 + 1 + 1, "3 to 20, 5,000 and 9,999");
}
