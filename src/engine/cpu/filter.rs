//! The filter of one partition, in either form: f32 in a [`Space`], or whole numbers on a [`Grid`].

use super::exact::Norm;
use super::grid::Grid;
use super::space::{QueryFilter, Space};
use super::tile::{Form, word};

/// Where a partition's rows live for the filter, and what makes dropping a pair safe.
#[derive(Clone, Debug)]
pub(super) enum Filter {
    Floats(Space),
    Pairs(Grid),
}

impl Filter {
    /// What packed words are.
    pub fn form(&self) -> Form {
        match self {
            Self::Floats(_) => Form::Floats,
            Self::Pairs(_) => Form::Pairs,
        }
    }

    /// Packs a reference and returns its bias, and how much higher its sum might have been. On a grid that is nothing, and
    /// what comes back is its error, for [`Self::take_errors`].
    pub fn reference(&self, row: &[f32], norm: Norm, out: &mut [i32]) -> (i32, f32) {
        match self {
            Self::Floats(space) => {
                let (bias, slack) = space.reference(row, norm, bytemuck::cast_slice_mut(out));
                (word(bias), slack)
            }
            Self::Pairs(grid) => grid.reference(row, norm, out),
        }
    }

    /// Once all references are packed: takes the largest error from a grid's slacks, which has none.
    pub fn take_errors(&mut self, slack: &mut Vec<f32>) {
        if let Self::Pairs(grid) = self {
            grid.error = slack.iter().copied().fold(0.0, f32::max).into();
            *slack = Vec::new();
        }
    }

    /// Packs a query, halved at least so many times, and returns what its τ follows from.
    pub fn query(&self, row: &[f32], norm: Norm, halvings: u32, out: &mut [i32]) -> QueryFilter {
        match self {
            Self::Floats(space) => space.query(row, norm, bytemuck::cast_slice_mut(out)),
            Self::Pairs(grid) => grid.query(row, norm, halvings, out),
        }
    }

    /// The largest sum of any pair whose f32 distance could be `bound` or less.
    pub fn tau(&self, filter: QueryFilter, bound: f32) -> i32 {
        match self {
            Self::Floats(space) => word(space.tau(filter, bound)),
            Self::Pairs(grid) => grid.tau(filter, bound),
        }
    }

    /// A distance that no pair exceeds whose sum plus slack is this or less: the other direction of [`Self::tau`].
    pub fn bound(&self, filter: QueryFilter, sum: f64) -> f32 {
        match self {
            Self::Floats(space) => space.bound(filter, sum),
            Self::Pairs(grid) => grid.bound(filter, sum),
        }
    }
}

/// Biases as queries that were halved so many times meet them; those that never or always pass stay as they are.
pub(super) fn halve(bias: &[i32], halvings: u32, out: &mut Vec<i32>) {
    let kept = |bias: i32| bias == Form::Pairs.never() || bias == Form::Pairs.always();
    out.clear();
    out.extend(bias.iter().map(|&bias| if kept(bias) { bias } else { bias >> halvings }));
}
