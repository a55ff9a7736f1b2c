use super::*;
use crate::store::memory::MemorySource;
use crate::store::testing::{Failure, through_f32, values};
use crate::store::{conformance, testing};

fn prepared(values: &[f64], dim: usize, preparation: Preparation) -> Result<Prepared, Failure> {
    let source = MemorySource::from_f64("m", dim, values.to_vec())?;
    Ok(Prepared::new(Arc::new(source), preparation)?)
}

fn row(values: &[f64], preparation: Preparation) -> Result<Vec<f64>, Failure> {
    let mut out = vec![0.0; values.len()];
    prepared(values, values.len(), preparation)?.read_f64(&[0..1], &mut out)?;
    Ok(out)
}

#[test]
fn prepared_rows_conform_wherever_their_pieces_end() -> Result<(), Failure> {
    let (rows, dim) = (1500, 6);
    let values = values(rows, dim);
    let centre: Arc<[f64]> = values[..dim].into();
    let centred: Vec<f64> = values.iter().enumerate().map(|(at, v)| v - centre[at % dim]).collect();
    for piece_bytes in [1, 48 * 7, 48 * 1024, PIECE_BYTES] {
        let mut source = prepared(&values, dim, Preparation::Centre(Arc::clone(&centre)))?;
        source.piece_bytes = piece_bytes;
        conformance::check(&source, &through_f32(&centred)).map_err(|e| format!("{piece_bytes}: {e}"))?;
        assert!(source.scratch_bytes() <= piece_bytes.max(48), "{piece_bytes}");
    }
    Ok(())
}

#[test]
fn the_centre_is_subtracted_before_the_rounding() -> Result<(), Failure> {
    // In float32, 1e6 + 0.01 and 1e6 + 0.02 are the same number.
    let rows = row(&[1e6 + 0.01, 1e6 + 0.02], Preparation::Centre([1e6, 1e6].into()))?;
    assert_eq!(testing::as_f32(&rows), testing::as_f32(&[1e6 + 0.01 - 1e6, 1e6 + 0.02 - 1e6]));
    assert!(rows[0] > 0.0099 && rows[0] < 0.0101 && rows[1] > 0.0199, "{rows:?}");
    Ok(())
}

#[test]
fn rows_of_any_size_get_length_one() -> Result<(), Failure> {
    for scale in [1.0, 1e-320, 1e-200, 1e-30, 1e30, 1e200, 1e307] {
        let unit = row(&[3.0 * scale, 0.0, -4.0 * scale], Preparation::Unit)?;
        // A subnormal number has few digits.
        let error = if scale < 1e-308 { 1e-3 } else { 1e-7 };
        assert!((unit[0] - 0.6).abs() < error && unit[1] == 0.0 && (unit[2] + 0.8).abs() < error, "{scale}: {unit:?}");
        let centred = row(&[3.0 * scale, 5.0 * scale], Preparation::CentredUnit)?;
        assert!((centred[0] + 0.5_f64.sqrt()).abs() < error && centred[0] == -centred[1], "{scale}: {centred:?}");
    }
    assert_eq!(row(&[0.0, -0.0], Preparation::Unit)?, [0.0, 0.0]);
    Ok(())
}

#[test]
fn a_constant_row_has_no_correlation_and_is_named() -> Result<(), Failure> {
    let mut values = values(3000, 4);
    values[2500 * 4..2501 * 4].fill(0.1);
    let source = prepared(&values, 4, Preparation::CentredUnit)?;
    assert!(source.read(&[0..2500, 2501..3000], &mut vec![0.0; 2999 * 4]).is_ok());
    let read = source.read(&[10..3000], &mut vec![0.0; 2990 * 4]);
    assert!(matches!(read, Err(StoreError::ConstantRow { row: 2500, .. })), "{read:?}");
    assert!(row(&[1.0], Preparation::CentredUnit).is_err(), "one dimension is always constant");
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(prepared(&[1.0, 2.0], 2, Preparation::Centre([0.0].into())).is_err());
    let read = row(&[1e39, 2.0], Preparation::Centre([0.0, 0.0].into()));
    assert!(read.is_err_and(|e| e.to_string().contains("too large for float32")));
    assert_eq!(Preparation::of(Metric::Cosine), Some(Preparation::Unit));
    assert_eq!(Preparation::of(Metric::Euclidean), None);
}
