//! Claims about turns: every pair is in one, and no turn holds too much.

use super::*;
use crate::engine::gpu::steps::rows_in;
use proptest::prelude::*;

fn visit(rows: Range<u32>, queries: impl IntoIterator<Item = u32>) -> Visit {
    Visit { rows, queries: VisitQueries::List(queries.into_iter().collect()) }
}

/// What is seen in a turn, cut into so many runs and together again.
fn seeing(turns: &Turns, turn: usize, runs: usize) -> Vec<Seeing> {
    (0..runs).flat_map(|run| turns.seeing(turn, run, runs)).collect()
}

/// Every (query, row) that is seen in any turn.
fn pairs(all: &[Turns]) -> Vec<(u32, u32)> {
    let turns = all.iter().flat_map(|turns| (0..turns.len()).flat_map(|turn| seeing(turns, turn, 3)));
    let of = |seeing: Seeing| {
        let rows = |query| seeing.rows.clone().map(move |row| (query, row));
        seeing.queries.iter().flat_map(|query| rows(*query)).collect::<Vec<_>>()
    };
    let mut pairs: Vec<_> = turns.flat_map(of).collect();
    pairs.sort_unstable();
    pairs
}

/// Rows of each query in a turn.
fn counts(turns: &Turns, turn: usize, n: usize) -> Vec<u32> {
    let mut counts = vec![0; n];
    for Seeing { rows, queries, .. } in seeing(turns, turn, 2) {
        assert!(queries.is_sorted_by(|a, b| a < b));
        for query in queries {
            counts[index(query)] += rows.end - rows.start;
        }
    }
    counts
}

const LIMITS: Limits = Limits { room: 40, enough: 6, growth: 3, tile: 16 };

#[test]
fn a_query_without_a_threshold_sees_no_more_than_there_is_room_for() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut seen = vec![0, 0, 30, 5];
    let visits = [visit(5..95, [0, 2]), visit(100..130, [0, 1, 3])];
    let all = Turns::of(&pool, LIMITS, 128, &mut seen, &visits.iter().collect::<Vec<_>>());
    assert_eq!((all.len(), seen), (1, vec![120, 30, 120, 35]));
    let of = |turn: usize| -> Vec<_> { seeing(&all[0], turn, 1).into_iter().map(|s| (s.rows, s.queries)).collect() };
    // Query 2 has seen 30 rows, so that it may see 90.
    assert_eq!(of(0), [(5..95, vec![2]), (5..32, vec![0]), (100..130, vec![1, 3])]);
    assert_eq!(of(1), [(32..95, vec![0])]);
    assert_eq!(of(2), [(100..130, vec![0])]);
    assert_eq!(all[0].len(), 3);
    let new: Vec<u32> = seeing(&all[0], 0, 1).into_iter().flat_map(|seeing| seeing.new).collect();
    assert_eq!(new, [2, 0, 1, 3]);
    assert_eq!((all[0].pairs(0), all[0].pairs(1)), (4, 1));
}

proptest! {
    #[test]
    fn every_pair_is_in_one_turn_and_no_turn_holds_too_much(
        visits in prop::collection::vec((0_u32..300, 1_u32..160, any::<u64>()), 0..12),
        before in prop::collection::vec(prop_oneof![Just(0_u32), 0_u32..60], 50),
        chunk in 1_u32..60,
        some in any::<u64>(),
    ) {
        let list = |bits: u64| (0..50_u32).filter(move |query| bits >> query & 1 == 1);
        let visits: Vec<Visit> = visits.iter().map(|(first, n, bits)| visit(*first..first + n, list(*bits))).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let mut seen = before.clone();
        let all = Turns::of(&pool, LIMITS, chunk, &mut seen, &visits.iter().collect::<Vec<_>>());
        let asked = |keep: &dyn Fn(u32) -> bool| {
            let mut asked = Vec::new();
            for visit in &visits {
                let rows = rows_in(&visit.queries, &(0..50));
                for query in rows.into_iter().filter(|query| keep(*query)) {
                    asked.extend(visit.rows.clone().map(|row| (query, row)));
                }
            }
            asked.sort_unstable();
            asked
        };
        prop_assert_eq!(pairs(&all), asked(&|_| true));
        let mut now = before;
        for turns in &all {
            for turn in 0..turns.len() {
                let counts = counts(turns, turn, 50);
                let mut new: Vec<u32> = seeing(turns, turn, 4).into_iter().flat_map(|seeing| seeing.new).collect();
                new.sort_unstable();
                prop_assert!(new.is_sorted_by(|a, b| a < b), "a query is new once: {new:?}");
                for (query, (&n, now)) in (0..).zip(counts.iter().zip(&mut now)) {
                    // What is left of a visit behind its head is not cut again.
                    let most = if *now < LIMITS.enough { LIMITS.room } else { LIMITS.after(*now).max(LIMITS.few()) };
                    prop_assert!(n <= most, "query {query} sees {n} rows after {now}");
                    prop_assert_eq!(n > 0, new.contains(&query));
                    *now += n;
                }
            }
        }
        prop_assert_eq!(now, seen);
        let some: Vec<u32> = list(some).collect();
        let again: Vec<Turns> = all.iter().map(|turns| turns.again(LIMITS, &some)).collect();
        prop_assert_eq!(pairs(&again), asked(&|query| some.contains(&query)));
        for turns in &again {
            let most = |turn| counts(turns, turn, 50).into_iter().max().unwrap_or(0);
            prop_assert!((0..turns.len()).all(|turn| most(turn) <= LIMITS.room));
        }
    }
}
