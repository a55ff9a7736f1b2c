//! How lists are put into partitions.

use std::ops::Range;

/// The size of partitions, and whether they stay in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    rows_max: u32,
    /// Where partitions stay, each row belongs to one for good.
    kept: Option<Vec<Range<u64>>>,
}

/// A partition of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// What is read, ascending.
    pub rows: Vec<Range<u64>>,
    /// The rows of lists among it, as rows of the partition. A list may lie in several partitions.
    pub pieces: Vec<(usize, Range<u32>)>,
}

impl Cut {
    /// Partitions of at most `rows_max` rows (at least 1) that are read for one block, and hold only what it needs.
    #[must_use]
    pub fn streamed(rows_max: u32) -> Self {
        Self { rows_max: rows_max.max(1), kept: None }
    }

    /// Partitions of at most `rows_max` rows (at least 1) that stay, cut between lists where those are not larger.
    #[must_use]
    pub fn kept(rows_max: u32, offsets: &[u64]) -> Self {
        let rows_max = rows_max.max(1);
        let mut partitions: Vec<Range<u64>> = Vec::new();
        for list in offsets.windows(2) {
            let mut start = list[0];
            match partitions.last_mut() {
                Some(last) if list[1] - last.start <= u64::from(rows_max) => {
                    last.end = list[1];
                    continue;
                }
                _ => {}
            }
            while start < list[1] {
                let end = list[1].min(start + u64::from(rows_max));
                partitions.push(start..end);
                start = end;
            }
        }
        Self { rows_max, kept: Some(partitions) }
    }

    /// The partitions of these lists (number and rows, ascending), without the rows before `seen_to`.
    pub fn parts(&self, lists: impl Iterator<Item = (usize, Range<u64>)>, seen_to: u64) -> Vec<Part> {
        let lists = lists.map(|(list, rows)| (list, rows.start.max(seen_to)..rows.end));
        let lists = lists.filter(|(_, rows)| rows.start < rows.end);
        match &self.kept {
            Some(partitions) => among(partitions, lists),
            None => packed(self.rows_max, lists),
        }
    }
}

/// The whole partitions that hold some of these lists.
fn among(partitions: &[Range<u64>], lists: impl Iterator<Item = (usize, Range<u64>)>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (list, rows) in lists {
        let first = partitions.partition_point(|partition| partition.end <= rows.start);
        for partition in partitions[first..].iter().take_while(|partition| partition.start < rows.end) {
            if parts.last().is_none_or(|part| part.rows[0] != *partition) {
                parts.push(Part { rows: vec![partition.clone()], pieces: Vec::new() });
            }
            let piece = rows.start.max(partition.start)..rows.end.min(partition.end);
            let local = local(piece.start - partition.start)..local(piece.end - partition.start);
            if let Some(part) = parts.last_mut() {
                part.pieces.push((list, local));
            }
        }
    }
    parts
}

/// Partitions that hold these lists and nothing else.
fn packed(rows_max: u32, lists: impl Iterator<Item = (usize, Range<u64>)>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut room = 0;
    for (list, mut rows) in lists {
        while rows.start < rows.end {
            let length = rows.end - rows.start;
            if room == 0 || (length > room && length <= u64::from(rows_max)) {
                parts.push(Part::default());
                room = u64::from(rows_max);
            }
            let end = rows.start + length.min(room);
            let used = u64::from(rows_max) - room;
            room -= end - rows.start;
            if let Some(part) = parts.last_mut() {
                part.pieces.push((list, local(used)..local(used + end - rows.start)));
                match part.rows.last_mut() {
                    Some(last) if last.end == rows.start => last.end = end,
                    _ => part.rows.push(rows.start..end),
                }
            }
            rows.start = end;
        }
    }
    parts
}

/// A row of a partition, which has at most u32 of them.
fn local(row: u64) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OFFSETS: [u64; 7] = [0, 4, 4, 9, 30, 31, 40];

    fn lists(needed: &[usize]) -> impl Iterator<Item = (usize, Range<u64>)> {
        needed.iter().map(|&list| (list, OFFSETS[list]..OFFSETS[list + 1]))
    }

    fn part(rows: &[Range<u64>], pieces: &[(usize, Range<u32>)]) -> Part {
        Part { rows: rows.to_vec(), pieces: pieces.to_vec() }
    }

    #[test]
    fn what_streams_holds_needed_lists_only_and_cuts_those_that_are_too_large() {
        let cut = Cut::streamed(10);
        let expected = [
            part(&[0..4, 30..31], &[(0, 0..4), (4, 4..5)]),
            // Nine more rows would not fit behind those.
            part(&[31..40], &[(5, 0..9)]),
        ];
        assert_eq!(cut.parts(lists(&[0, 1, 4, 5]), 0), expected);
        let expected =
            [part(&[4..14], &[(2, 0..5), (3, 5..10)]), part(&[14..24], &[(3, 0..10)]), part(&[24..30], &[(3, 0..6)])];
        assert_eq!(cut.parts(lists(&[2, 3]), 0), expected);
    }

    #[test]
    fn what_stays_is_cut_between_lists_and_read_whole() {
        let cut = Cut::kept(10, &OFFSETS);
        let grid = [0..9, 9..19, 19..29, 29..31, 31..40];
        assert_eq!(cut.kept.as_deref(), Some(&grid[..]));
        let expected = [
            part(&[0..9], &[(0, 0..4)]),
            part(&[9..19], &[(3, 0..10)]),
            part(&[19..29], &[(3, 0..10)]),
            part(&[29..31], &[(3, 0..1)]),
            part(&[31..40], &[(5, 0..9)]),
        ];
        assert_eq!(cut.parts(lists(&[0, 3, 5]), 0), expected);
    }

    #[test]
    fn what_was_seen_is_left_out() {
        assert_eq!(Cut::streamed(10).parts(lists(&[0, 2, 4]), 6), [part(&[6..9, 30..31], &[(2, 0..3), (4, 3..4)])]);
        assert_eq!(Cut::kept(10, &OFFSETS).parts(lists(&[0, 2]), 6), [part(&[0..9], &[(2, 6..9)])]);
        assert!(Cut::streamed(10).parts(lists(&[0, 2, 4]), 31).is_empty());
    }

    proptest! {
        #[test]
        fn every_needed_row_is_in_one_piece_and_every_piece_where_it_says(
            sizes in prop::collection::vec((0_u64..40, any::<bool>()), 0..30),
            rows_max in 1_u32..60,
            seen_to in 0_u64..200,
            stays in any::<bool>(),
        ) {
            let mut offsets = vec![0];
            for (size, _) in &sizes {
                offsets.push(offsets[offsets.len() - 1] + size);
            }
            let needed: Vec<_> = (0..sizes.len()).filter(|&i| sizes[i].1).map(|i| (i, offsets[i]..offsets[i + 1])).collect();
            let cut = if stays { Cut::kept(rows_max, &offsets) } else { Cut::streamed(rows_max) };
            let mut seen = Vec::new();
            for part in cut.parts(needed.iter().cloned(), seen_to) {
                let rows: Vec<u64> = part.rows.iter().cloned().flatten().collect();
                prop_assert!(rows.is_sorted() && rows.len() as u64 <= u64::from(rows_max));
                for (list, local) in part.pieces {
                    let rows = local.map(|row| (list, rows[usize::try_from(row).unwrap()]));
                    seen.extend(rows);
                }
            }
            let expected: Vec<_> =
                needed.iter().flat_map(|(i, rows)| rows.clone().map(|row| (*i, row))).filter(|(_, row)| *row >= seen_to).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
