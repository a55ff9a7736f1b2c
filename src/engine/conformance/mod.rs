//! What every engine must do, as functions of how one is made. An engine's tests call [`claims!`]; nothing here knows
//! which engine it holds. Sizes stay under 2 million pairs a search, which a software GPU does in a second.

pub(crate) mod codes;
pub(crate) mod numbers;
pub(crate) mod order;
pub(crate) mod shapes;

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{Engine, Exclude, NO_GROUP, Partition, Visit, VisitQueries};
use crate::block::{RowBlock, RowIds};
use crate::metric::{EngineKind, Metric};
use crate::oracle::search::{Truth, agrees, search};
use crate::topk::TopK;
use crate::units::K;

/// The engine under test.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Makes one with nothing loaded.
    pub make: &'a dyn Fn(Metric) -> Box<dyn Engine>,
    /// Whose tie band holds.
    pub kind: EngineKind,
}

/// Makes a test of every claim for the engine that `$subject` (a `Subject`) describes; with `each:`, of what the function
/// behind it (`fn(fn(Subject<'_>))`) does with the claim, such as calling it with several engines.
macro_rules! claims {
    (each: $check:expr; $($module:ident: $($claim:ident),+;)+) => {
        $($(
            #[test]
            fn $claim() {
                ($check)($crate::engine::conformance::$module::$claim);
            }
        )+)+
    };
    (each: $check:expr) => {
        $crate::engine::conformance::claims! { each: $check;
            shapes: every_shape_agrees_with_the_oracle, few_and_many_queries_of_any_width_agree_with_the_oracle,
                nothing_is_found_where_there_is_nothing, misfits_are_errors, calls_before_begin_are_errors;
            order: splits_and_order_do_not_show, identical_rows_in_reverse_are_found_by_id,
                identical_rows_keep_to_ranges_and_exclusion, identical_rows_on_the_far_side_hide_nothing,
                ties_go_to_the_lower_id_whatever_the_order, rows_visited_twice_count_once,
                lists_of_queries_and_row_ranges_are_kept_to, a_restored_search_ends_as_if_it_had_not_stopped,
                bounds_are_the_last_column, begin_forgets_what_was_before,
                nearest_rows_are_found_beside_what_was_begun,
                a_query_that_is_too_far_for_distances_has_its_nearest_landmark_and_others_keep_theirs;
            numbers: a_row_is_its_own_nearest_at_zero, the_own_row_is_excluded_by_id, groups_are_excluded,
                masked_rows_are_not_found, offsets_and_scales_change_no_neighbour, one_outlier_changes_nothing_else,
                values_near_the_ends_of_f32_agree, zero_vectors_are_at_cosine_distance_one,
                constant_rows_have_no_correlation, clustered_rows_stored_by_cluster_agree;
            codes: codes_are_searched_as_the_rows_they_decode_to, codes_keep_to_ranges_masks_and_exclusion,
                masses_of_equal_codes_are_found_by_id;
        }
    };
    ($subject:expr) => {
        $crate::engine::conformance::claims!(each: |claim: fn($crate::engine::conformance::Subject<'_>)| claim($subject));
    };
}
pub(crate) use claims;

/// Seeded normal-ish values: sums of uniforms, so tails are short and nothing depends on a distribution's version.
pub(crate) fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..n).map(|_| (0..4).map(|_| rng.random_range(-1.0_f32..1.0)).sum()).collect()
}

/// Rows about `clusters` centres, in the order of their cluster.
pub(crate) fn clustered(seed: u64, rows: usize, dim: usize, clusters: usize) -> Vec<f32> {
    // Queries and references made with different seeds share the centres.
    let centres = noise(9, clusters * dim);
    let mut values = noise(seed, rows * dim);
    for (row, values) in values.chunks_exact_mut(dim).enumerate() {
        let centre = row * clusters / rows;
        for (value, centre) in values.iter_mut().zip(&centres[centre * dim..]) {
            *value = *value * 0.3 + centre * 3.0;
        }
    }
    values
}

pub(crate) fn block(first: u64, dim: usize, values: Vec<f32>) -> RowBlock {
    let rows = (values.len() / dim) as u64;
    RowBlock::new(RowIds::Range(first..first + rows), dim, values).expect("a block")
}

pub(crate) fn k(k: u32) -> K {
    K::new(k).expect("a small k")
}

/// A visit of all queries to all rows of a partition.
pub(crate) fn whole(part: &Partition) -> Visit {
    Visit { rows: 0..u32::try_from(part.block.rows()).expect("few rows"), queries: VisitQueries::All }
}

/// The rows of a block from one to another, as a block.
pub(crate) fn part_of(block: &RowBlock, start: usize, end: usize) -> RowBlock {
    let ids = match block.ids() {
        RowIds::Range(range) => RowIds::Range(range.start + start as u64..range.start + end as u64),
        RowIds::List(ids) => RowIds::List(ids[start..end].to_vec()),
    };
    RowBlock::new(ids, block.dim(), block.values()[start * block.dim()..end * block.dim()].to_vec()).expect("a part")
}

/// Cuts a block into partitions of so many rows.
pub(crate) fn cut(block: &RowBlock, rows: usize) -> Vec<Arc<Partition>> {
    (0..block.rows())
        .step_by(rows)
        .map(|at| Partition::new(part_of(block, at, (at + rows).min(block.rows()))))
        .collect()
}

/// One search: what is searched for what.
pub(crate) struct Case {
    pub metric: Metric,
    pub queries: RowBlock,
    pub references: RowBlock,
    pub k: K,
    pub exclude: Exclude,
    pub groups: Option<Vec<u32>>,
    pub mask: Option<Vec<bool>>,
}

impl Case {
    pub fn new(metric: Metric, queries: &RowBlock, references: &RowBlock, k: K) -> Self {
        let (queries, references) = (queries.clone(), references.clone());
        Self { metric, queries, references, k, exclude: Exclude::Nothing, groups: None, mask: None }
    }

    /// What must be found.
    pub fn truth(&self) -> Truth {
        let own = |q: usize, r: usize| self.queries.ids().get(q) == self.references.ids().get(r);
        search(self.metric, &self.queries, &self.references, |q, r| {
            let masked = self.mask.as_ref().is_some_and(|mask| !mask[r]);
            let excluded = match &self.exclude {
                Exclude::Nothing => false,
                Exclude::OwnRow => own(q, r),
                Exclude::SameGroup { groups, own_row } => {
                    let group = groups[q];
                    let same = self.groups.as_ref().is_some_and(|of| group != NO_GROUP && of[r] == group);
                    same || *own_row && own(q, r)
                }
            };
            !masked && !excluded
        })
    }

    /// What is found, all references being one partition.
    pub fn find(&self, subject: Subject<'_>) -> TopK {
        let part = Partition::with(self.references.clone(), self.groups.clone(), self.mask.clone());
        let mut engine = (subject.make)(self.metric);
        engine.begin(&self.queries, self.k, &self.exclude).expect("begin");
        engine.visit(&part, &[whole(&part)]).expect("visit");
        engine.finish().expect("finish")
    }

    /// Holds what is found to the truth.
    pub fn check(&self, subject: Subject<'_>, what: &str) -> TopK {
        let found = self.find(subject);
        if let Err(disagreement) = agrees(&found, &self.truth(), subject.kind) {
            panic!("{what}, {}, k = {}: {disagreement}", self.metric, self.k);
        }
        found
    }
}
