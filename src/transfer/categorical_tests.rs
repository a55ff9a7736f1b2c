use super::*;
use proptest::prelude::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn matrix(rows: &[&[(u64, f32)]]) -> MatrixRows {
    let mut matrix = MatrixRows { offsets: vec![0], ..MatrixRows::default() };
    for row in rows {
        matrix.columns.extend(row.iter().map(|entry| entry.0));
        matrix.weights.extend(row.iter().map(|entry| entry.1));
        matrix.offsets.push(matrix.columns.len());
    }
    matrix
}

const ALL: LabelOptions = LabelOptions { min_confidence: None, probabilities: true };

#[test]
fn ties_go_to_the_first_name_and_codes_keep_the_stored_order() -> Result<(), TransferError> {
    // Stored order z, a; sorted order a, z. Reference rows: z, a, z.
    let transfer = LabelTransfer::new(vec![0, 1, 0], &names(&["z", "a", "unused"]), None)?;
    assert_eq!(transfer.columns(), [1, 0]);
    let labels = transfer.transfer(&matrix(&[&[(0, 0.5), (1, 0.5)], &[(0, 0.3), (1, 0.4), (2, 0.3)]]), &ALL)?;
    assert_eq!(labels.codes, [1, 0]);
    assert_eq!(labels.confidences, [0.5, 0.6]);
    assert_eq!(labels.probabilities, [0.5, 0.5, 0.4, 0.6]);
    Ok(())
}

#[test]
fn missing_values_are_a_category_of_their_own_and_the_last() -> Result<(), TransferError> {
    let transfer = LabelTransfer::new(vec![-1, 0, -1], &names(&["b"]), None)?;
    assert_eq!(transfer.columns(), [0, -1]);
    let labels = transfer.transfer(&matrix(&[&[(0, 0.5), (1, 0.5)], &[(0, 0.6), (1, 0.4)]]), &ALL)?;
    assert_eq!((labels.codes, labels.confidences), (vec![0, -1], vec![0.5, 0.6]));
    Ok(())
}

#[test]
fn a_row_without_votes_gets_the_first_column_with_confidence_0() -> Result<(), TransferError> {
    let categories = names(&["b", "a"]);
    let empty = matrix(&[&[], &[(0, 0.0)]]);
    let all = LabelTransfer::new(vec![0, 1], &categories, None)?.transfer(&empty, &ALL)?;
    assert_eq!((all.codes, all.confidences), (vec![1, 1], vec![0.0, 0.0]));
    let subset = LabelTransfer::new(vec![0, 1], &categories, Some(&names(&["b"])))?;
    let labels = subset.transfer(&matrix(&[&[(1, 1.0)]]), &ALL)?;
    assert_eq!((labels.codes, labels.probabilities), (vec![0], vec![0.0]));
    let nothing = LabelTransfer::new(vec![], &[], None)?.transfer(&matrix(&[&[]]), &ALL)?;
    assert_eq!((nothing.codes, nothing.confidences), (vec![-1], vec![0.0]));
    Ok(())
}

#[test]
fn a_subset_keeps_its_order_and_is_not_renormalised() -> Result<(), TransferError> {
    let categories = names(&["a", "b", "c"]);
    let transfer = LabelTransfer::new(vec![0, 1, 2, -1], &categories, Some(&names(&["c", "a"])))?;
    assert_eq!(transfer.columns(), [2, 0]);
    let labels = transfer.transfer(&matrix(&[&[(0, 0.25), (1, 0.25), (2, 0.25), (3, 0.25)]]), &ALL)?;
    assert_eq!((labels.codes, labels.confidences, labels.probabilities), (vec![2], vec![0.25], vec![0.25, 0.25]));
    Ok(())
}

#[test]
fn unsure_labels_become_missing_and_keep_their_confidence() -> Result<(), TransferError> {
    let transfer = LabelTransfer::new(vec![0, 1], &names(&["a", "b"]), None)?;
    let rows = matrix(&[&[(0, 0.5), (1, 0.5)], &[(0, 0.25), (1, 0.75)]]);
    let options = LabelOptions { min_confidence: Some(0.75), probabilities: false };
    let labels = transfer.transfer(&rows, &options)?;
    assert_eq!((labels.codes, labels.confidences, labels.probabilities), (vec![-1, 1], vec![0.5, 0.75], vec![]));
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<(), TransferError> {
    let categories = names(&["a", "b"]);
    for code in [2, -2, i32::MIN, i32::MAX] {
        let refused = LabelTransfer::new(vec![0, code], &categories, None).map(|_| ());
        assert_eq!(refused, Err(TransferError::Code { row: 1, code, categories: 2 }));
    }
    let unknown = LabelTransfer::new(vec![0], &categories, Some(&names(&["A"]))).map(|_| ());
    assert_eq!(unknown, Err(TransferError::Category { found: "A".into(), known: "a, b".into() }));
    let twice = LabelTransfer::new(vec![0], &categories, Some(&names(&["a", "a"]))).map(|_| ());
    assert_eq!(twice, Err(TransferError::Repeated { found: "a".into() }));
    let beyond = LabelTransfer::new(vec![0, 1], &categories, None)?.transfer(&matrix(&[&[(0, 0.5), (2, 0.5)]]), &ALL);
    assert_eq!(beyond, Err(TransferError::Reference { row: 2, rows: 2 }));
    Ok(())
}

/// Rows over 12 references in quarters, so that ties are common and sums exact.
fn any_matrix() -> impl Strategy<Value = MatrixRows> {
    let row = prop::collection::btree_map(0_u64..12, (0_u8..4).prop_map(|quarters| f32::from(quarters) / 4.0), 0..=6);
    prop::collection::vec(row, 0..20).prop_map(|rows| {
        let rows: Vec<Vec<(u64, f32)>> = rows.into_iter().map(|row| row.into_iter().collect()).collect();
        matrix(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>())
    })
}

proptest! {
    #[test]
    fn the_label_is_the_first_maximum_of_the_probabilities(
        matrix in any_matrix(),
        codes in prop::collection::vec(-1_i32..4, 12),
    ) {
        let transfer = LabelTransfer::new(codes, &names(&["d", "b", "a", "c"]), None)?;
        let labels = transfer.transfer(&matrix, &ALL)?;
        let width = transfer.columns().len();
        for row in 0..matrix.rows() {
            let shares = &labels.probabilities[row * width..(row + 1) * width];
            let most = shares.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let first = shares.iter().position(|&share| share == most).expect("a column");
            prop_assert_eq!((labels.codes[row], labels.confidences[row]), (transfer.columns()[first], most));
            let (_, weights) = matrix.row(row);
            prop_assert_eq!(shares.iter().sum::<f32>(), weights.iter().sum::<f32>());
        }
    }
}

#[test]
fn rows_beyond_one_task_are_labelled_alike() -> Result<(), TransferError> {
    let transfer = LabelTransfer::new(vec![0, 1], &names(&["a", "b"]), None)?;
    let even = [(0, 1.0)].as_slice();
    let odd = [(0, 0.25), (1, 0.75)].as_slice();
    let rows: Vec<_> = (0..=2 * TASK_ROWS).map(|row| if row % 2 == 0 { even } else { odd }).collect();
    let labels = transfer.transfer(&matrix(&rows), &ALL)?;
    for row in 0..rows.len() {
        let (code, shares) = if row % 2 == 0 { (0, [1.0, 0.0]) } else { (1, [0.25, 0.75]) };
        assert_eq!((labels.codes[row], &labels.probabilities[row * 2..row * 2 + 2]), (code, shares.as_slice()));
    }
    Ok(())
}
