//! Twin of `gather.wgsl`: queries, by their rows, copied into tiles of their own; and the two layouts of packed rows.

/// A slot without a query.
pub const NO_ROW: u32 = u32::MAX;

/// Where channel k of a row is in `[row / tile][channel][row % tile]`.
#[must_use]
pub fn in_tiles(row: usize, k: usize, channels: usize, tile: usize) -> usize {
    (row / tile * channels + k) * tile + row % tile
}

/// Where column k of a row is in fragments, `[row / 16][column / 16][row % 16][column % 16]`; `columns` is whole sixteens.
#[must_use]
pub fn in_fragments(row: usize, k: usize, columns: usize) -> usize {
    (row / 16 * (columns / 16) + k / 16) * 256 + row % 16 * 16 + k % 16
}

/// `slots.len() × channels` values, zeros for slots without a query. `place(row, k)` says where a value is.
#[must_use]
pub fn gather<T: Copy + Default>(
    from: &[T],
    slots: &[u32],
    channels: usize,
    place: impl Fn(usize, usize) -> usize,
) -> Vec<T> {
    let mut to = vec![T::default(); slots.len() * channels];
    for (slot, &row) in slots.iter().enumerate().filter(|(_, row)| **row != NO_ROW) {
        let row = usize::try_from(row).unwrap_or(usize::MAX);
        (0..channels).for_each(|k| to[place(slot, k)] = from[place(row, k)]);
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_taken_once() {
        let (rows, channels) = (64, 32);
        for layout in [0, 1] {
            let place =
                |row, k| if layout == 0 { in_tiles(row, k, channels, 32) } else { in_fragments(row, k, channels) };
            let mut all: Vec<usize> = (0..rows * channels).map(|i| place(i / channels, i % channels)).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..rows * channels), "layout {layout}");
        }
    }
}
