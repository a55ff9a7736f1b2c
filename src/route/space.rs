//! The space that lists are made in: one where euclidean distance orders rows as the metric does, as far as there is one.

use crate::metric::Metric;
use crate::store::prepared::{make_unit, subtract_mean};

/// Where rows are before they are put into lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListSpace {
    /// Where they are.
    Rows,
    /// On the unit sphere.
    Unit,
    /// On the unit sphere, their own mean taken off first.
    CentredUnit,
}

impl ListSpace {
    /// The space of a metric.
    #[must_use]
    pub fn of(metric: Metric) -> Self {
        match metric {
            Metric::Cosine => Self::Unit,
            Metric::Correlation => Self::CentredUnit,
            _ => Self::Rows,
        }
    }

    /// Puts a row there, in float64; false when it has no place: a zero row has no direction, and a constant one no
    /// correlation. What is in `out` then is the centre of the sphere.
    pub fn place(self, row: &[f32], out: &mut [f64]) -> bool {
        out.iter_mut().zip(row).for_each(|(out, value)| *out = f64::from(*value));
        match self {
            Self::Rows => true,
            Self::Unit => {
                make_unit(out);
                out.iter().any(|value| *value != 0.0)
            }
            Self::CentredUnit if row.iter().all(|value| *value == row[0]) => {
                out.fill(0.0);
                false
            }
            Self::CentredUnit => {
                subtract_mean(out);
                make_unit(out);
                true
            }
        }
    }

    /// Puts rows there in place, rounded to float32; the first row that has no place stops it.
    ///
    /// # Errors
    /// The number of that row among these, for a correlation. Zero rows stay, as they do under cosine.
    pub fn place_all(self, rows: &mut [f32], dim: usize) -> Result<(), usize> {
        if self == Self::Rows {
            return Ok(());
        }
        let mut placed = vec![0.0; dim];
        for (at, row) in rows.chunks_exact_mut(dim).enumerate() {
            if !self.place(row, &mut placed) && self == Self::CentredUnit {
                return Err(at);
            }
            #[allow(clippy::cast_possible_truncation)] // the rounding that is asked for
            row.iter_mut().zip(&placed).for_each(|(row, value)| *row = *value as f32);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_placed_where_their_angle_is_a_distance() {
        let mut out = [0.0; 2];
        assert!(ListSpace::Rows.place(&[3.0, 4.0], &mut out) && out == [3.0, 4.0]);
        assert!(ListSpace::Unit.place(&[3.0, 4.0], &mut out) && out == [0.6, 0.8]);
        assert!(ListSpace::CentredUnit.place(&[1.0, 3.0], &mut out));
        assert!((out[0] + 0.5_f64.sqrt()).abs() < 1e-15 && (out[1] - 0.5_f64.sqrt()).abs() < 1e-15);
        assert!(!ListSpace::Unit.place(&[0.0, 0.0], &mut out) && out == [0.0, 0.0]);
        assert!(!ListSpace::CentredUnit.place(&[7.0, 7.0], &mut out) && out == [0.0, 0.0]);
    }

    #[test]
    fn a_constant_row_is_named_and_a_zero_row_stays() {
        let mut rows = [1.0, 2.0, 5.0, 5.0];
        assert_eq!(ListSpace::CentredUnit.place_all(&mut rows, 2), Err(1));
        let mut rows = [0.0, 0.0, 0.0, 2.0];
        assert_eq!(ListSpace::Unit.place_all(&mut rows, 2), Ok(()));
        assert_eq!(rows, [0.0, 0.0, 0.0, 1.0]);
    }
}
