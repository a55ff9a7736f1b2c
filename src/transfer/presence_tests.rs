use super::*;
use crate::units::K;
use proptest::prelude::*;

const PLAIN: PresenceOptions = PresenceOptions { log: false, percentiles: (0.0, 100.0), min_max: false };
const DEFAULT: PresenceOptions = PresenceOptions { log: false, percentiles: (1.0, 99.0), min_max: true };

fn top(k: u32, rows: &[Vec<u64>]) -> TopK {
    let mut top = TopK::empty(rows.len(), K::new(k).expect("k"));
    for (r, row) in rows.iter().enumerate() {
        top.set_row(r, &row.iter().map(|&id| (1.0, id)).collect::<Vec<_>>());
    }
    top
}

fn weights(top: &TopK, first_row: usize) -> Vec<f64> {
    (0..top.ids().len()).map(|slot| 1.0 / (1.0 + (first_row * top.k() + slot) as f64)).collect()
}

fn of(sums: &[f64]) -> Presence {
    Presence::from_sums(sums.len(), 0, sums.to_vec()).expect("one sum per reference")
}

fn scores(presence: &Presence, options: &PresenceOptions) -> Vec<f32> {
    let scale = presence.scale(PresenceOf::All, options).expect("percentiles in range");
    presence.scores(PresenceOf::All, &scale, 0..presence.references())
}

proptest! {
    #[test]
    fn blocks_give_the_same_bytes_as_all_at_once(
        rows in prop::collection::vec((prop::collection::btree_set(0_u64..9, 0..=3), -1_i32..2), 0..40),
        cut in 0_usize..40,
        threads in 1_usize..4,
    ) {
        let (ids, groups): (Vec<Vec<u64>>, Vec<i32>) =
            rows.into_iter().map(|(ids, group)| (ids.into_iter().collect::<Vec<_>>(), group)).unzip();
        let cut = cut.min(ids.len());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let whole = top(3, &ids);
        let mut at_once = Presence::new(9, 2);
        at_once.add(&whole, &weights(&whole, 0), Some(&groups))?;
        let (a, b) = (top(3, &ids[..cut]), top(3, &ids[cut..]));
        let mut in_blocks = Presence::new(9, 2);
        pool.install(|| {
            in_blocks.add(&a, &weights(&a, 0), Some(&groups[..cut]))?;
            in_blocks.add(&b, &weights(&b, cut), Some(&groups[cut..]))
        })?;
        let bits = |presence: &Presence| presence.sums().iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&in_blocks), bits(&at_once));
    }

    #[test]
    fn ranks_are_those_of_a_sort(mut values in prop::collection::vec(prop_oneof![Just(0.0), Just(-0.0), any::<f64>()], 1..50)) {
        let found: Vec<u64> = (0..values.len()).map(|rank| nth(|| values.iter().copied(), rank).to_bits()).collect();
        values.sort_by(f64::total_cmp);
        prop_assert_eq!(found, values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
    }
}

#[test]
fn many_references_are_shared_out_among_threads_without_a_trace() -> Result<(), TransferError> {
    let n = 3 * TASK_REFERENCES + 7;
    let ids: Vec<Vec<u64>> = (0..500).map(|row| vec![row % 3, 10 + row * 97, n as u64 - 1]).collect();
    let top = top(3, &ids);
    let weights = weights(&top, 0);
    let mut expected = vec![0.0; n];
    for (row, ids) in ids.iter().enumerate() {
        for (slot, &id) in ids.iter().enumerate() {
            expected[usize::try_from(id).expect("small")] += weights[row * 3 + slot];
        }
    }
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let mut presence = Presence::new(n, 0);
        pool.install(|| presence.add(&top, &weights, None))?;
        assert!(presence.sums() == expected, "{threads} threads");
    }
    Ok(())
}

#[test]
fn groups_add_up_to_all_but_for_rows_of_no_group() -> Result<(), TransferError> {
    let top = top(2, &[vec![0, 1], vec![1], vec![0]]);
    let mut presence = Presence::new(3, 2);
    presence.add(&top, &[1.0, 2.0, 4.0, 0.0, 8.0, 0.0], Some(&[1, 0, -1]))?;
    assert_eq!(presence.sums(), [9.0, 0.0, 1.0, 6.0, 4.0, 2.0, 0.0, 0.0, 0.0]);
    assert_eq!(presence.raw(PresenceOf::Group(1), 0..2).collect::<Vec<_>>(), [1.0, 2.0]);
    Ok(())
}

#[test]
fn percentiles_are_numpys() -> Result<(), TransferError> {
    // np.percentile([4, 1, 3, 2], [1, 30, 50, 90, 99])
    let presence = of(&[4.0, 1.0, 3.0, 2.0]);
    for (percent, expected) in [(1.0, 1.03), (30.0, 1.9), (50.0, 2.5), (90.0, 3.7), (99.0, 3.97)] {
        let options = PresenceOptions { percentiles: (percent, 100.0), ..PLAIN };
        let least = presence.scale(PresenceOf::All, &options)?.at(0.0);
        assert!((least - expected).abs() < 1e-15, "{percent}: {least}");
    }
    Ok(())
}

#[test]
fn scores_are_logged_clipped_and_stretched_in_this_order() {
    let presence = of(&[0.0, 1.0, 3.0, 7.0, 1000.0]);
    assert_eq!(scores(&presence, &PLAIN), [0.0, 1.0, 3.0, 7.0, 1000.0]);
    let logged = PresenceOptions { log: true, percentiles: (25.0, 75.0), min_max: true };
    assert_eq!(scores(&presence, &logged), [0.0, 0.0, 0.5, 1.0, 1.0]);
}

#[test]
fn flat_and_tiny_references_score_zero() {
    for sums in [vec![], vec![5.0], vec![2.0; 7]] {
        assert_eq!(scores(&of(&sums), &DEFAULT), vec![0.0; sums.len()]);
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_added() {
    let top = top(2, &[vec![0, 1], vec![2]]);
    let mut presence = Presence::new(2, 1);
    let beyond = presence.add(&top, &[1.0; 4], None);
    assert_eq!(beyond, Err(TransferError::Reference { row: 2, rows: 2 }));
    assert!(presence.add(&top, &[1.0; 3], None).is_err());
    assert!(presence.add(&top, &[1.0; 4], Some(&[0])).is_err());
    assert_eq!(
        presence.add(&top, &[1.0; 4], Some(&[0, 1])),
        Err(TransferError::Code { row: 1, code: 1, categories: 1 })
    );
    assert_eq!(presence.sums(), [0.0; 4]);
    assert!(Presence::from_sums(2, 1, vec![0.0; 3]).is_err());
    for (low, high) in [(-1.0, 99.0), (1.0, 101.0), (60.0, 40.0), (f64::NAN, 99.0)] {
        let options = PresenceOptions { percentiles: (low, high), ..DEFAULT };
        assert!(presence.scale(PresenceOf::All, &options).is_err(), "{low}, {high}");
    }
}
