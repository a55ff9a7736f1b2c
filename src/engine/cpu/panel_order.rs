//! In which order panels are searched.

use std::ops::Range;

/// Panels are searched at these distances from each other first. References are often stored by cluster; a sample of
/// all of them brings τ near its end before most rows are met, whatever their order.
const STRIDES: [usize; 3] = [64, 8, 1];

/// Hands out all panels once, in runs of consecutive ones, as many runs at a time as make a block: first a sample at
/// wide strides, then what lies between.
pub(super) fn in_blocks(panels: Range<usize>, per_block: usize, mut visit: impl FnMut(&[Range<usize>])) {
    let n = panels.len();
    // A sample only pays where it is a small part.
    let first = STRIDES.iter().position(|stride| 4 * stride <= n).unwrap_or(STRIDES.len() - 1);
    let mut runs = Vec::new();
    let mut held = 0;
    for (level, &stride) in STRIDES.iter().enumerate().skip(first) {
        let done = if level == first { None } else { Some(STRIDES[level - 1]) };
        let mut at = 0;
        while at < n {
            if done.is_some_and(|done| at.is_multiple_of(done)) {
                at += stride;
                continue;
            }
            let end = match (stride, done) {
                (1, Some(done)) => at.next_multiple_of(done),
                (1, None) => at + per_block,
                _ => at + 1,
            };
            let end = end.min(n);
            runs.push(panels.start + at..panels.start + end);
            held += end - at;
            at = if stride == 1 { end } else { at + stride };
            if held >= per_block {
                visit(&runs);
                runs.clear();
                held = 0;
            }
        }
    }
    if !runs.is_empty() {
        visit(&runs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_is_searched_once() {
        for (panels, per_block) in
            [(0..0, 4), (0..1, 1), (3..10, 4), (5..36, 7), (0..33, 100), (7..300, 5), (1..2000, 80)]
        {
            let mut seen = vec![0; panels.end];
            in_blocks(panels.clone(), per_block, |runs| {
                for panel in runs.iter().cloned().flatten() {
                    seen[panel] += 1;
                }
            });
            let expected: Vec<i32> = (0..panels.end).map(|p| i32::from(panels.contains(&p))).collect();
            assert_eq!(seen, expected, "{panels:?} by {per_block}");
        }
    }
}
