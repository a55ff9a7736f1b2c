//! Which bytes of a file stand for all of them, when a run is to be sure that it has the same input as the one before.
//!
//! Times of files are no part of it: they change when a store is copied, and need not change when it is written.

/// Files whose bytes are summed, of those whose sizes are compared.
pub(crate) const SUMMED_FILES: u64 = 16;

/// Bytes summed of each: 4 MiB of an array of any size.
const SUMMED_BYTES: u64 = 256 << 10;

/// Parts that a larger file is summed in.
const PARTS: u64 = 4;

/// Offset and length of the parts to sum of the `place`-th file, of this many bytes: all of a small one, and of a larger one
/// its beginning, its end, where an index would be, and between them places that differ from file to file.
pub(crate) fn summed_parts(place: u64, bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= SUMMED_BYTES {
        return vec![(0, bytes)];
    }
    let part = SUMMED_BYTES / PARTS;
    // Between the first part and the last.
    let (inside, between) = (PARTS - 2, bytes - 2 * part);
    let mut parts = vec![(0, part)];
    for i in 0..inside {
        let stretch = between / inside;
        // A multiplicative hash (Knuth, 1998, 6.4): spread over the stretch, and the same every time.
        let moved = (place * inside + i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        parts.push((part + i * stretch + moved % (stretch - part).max(1), part));
    }
    parts.push((bytes - part, part));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_inside_the_file_in_order_and_few() {
        for bytes in [0, 1, SUMMED_BYTES, SUMMED_BYTES + 1, SUMMED_BYTES * 3 / 2, 1 << 30, 1 << 40] {
            for place in 0..SUMMED_FILES {
                let parts = summed_parts(place, bytes);
                assert_eq!(parts.iter().map(|(_, len)| len).sum::<u64>(), bytes.min(SUMMED_BYTES), "{bytes}");
                assert!(parts.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{bytes}: {parts:?}");
                assert!(parts.iter().all(|(at, len)| at + len <= bytes), "{bytes}: {parts:?}");
            }
        }
    }

    #[test]
    fn parts_of_large_files_differ_from_file_to_file() {
        let second: std::collections::HashSet<u64> =
            (0..SUMMED_FILES).map(|place| summed_parts(place, 1 << 30)[1].0).collect();
        assert_eq!(second.len() as u64, SUMMED_FILES);
    }
}
