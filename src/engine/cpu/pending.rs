//! What passed the filter and has no exact distance yet: a sum and a row in one word each, a fixed room per query.
//!
//! Most of what passes early on is overtaken before long. Waiting here until the sums themselves say so saves its exact
//! distance, and with it a read of a row that is in no cache.

/// Room for the pending references of some queries.
#[derive(Debug, Default)]
pub(super) struct Pending {
    room: usize,
    /// The order of the sum in the upper half, the row in the lower.
    slots: Vec<u64>,
    lengths: Vec<usize>,
}

impl Pending {
    /// References per query: few enough to stay in the cache, enough that sifting them seldom happens.
    pub fn room(k: usize) -> usize {
        4 * k + 28
    }

    /// Empties it and makes room for so many queries.
    pub fn reset(&mut self, k: usize, queries: usize) {
        self.room = Self::room(k);
        self.lengths.clear();
        self.lengths.resize(queries, 0);
        self.slots.resize(self.slots.len().max(queries * self.room), 0);
    }

    /// Puts a reference behind the others; whether that filled the room.
    #[inline]
    pub fn push(&mut self, query: usize, acc: f32, row: u32) -> bool {
        let length = self.lengths[query];
        self.slots[query * self.room + length] = u64::from(order_of(acc)) << 32 | u64::from(row);
        self.lengths[query] = length + 1;
        length + 1 == self.room
    }

    /// How many there are.
    pub fn len(&self, query: usize) -> usize {
        self.lengths[query]
    }

    /// The sums and rows of the `n` with the smallest sums, of at least `n`.
    pub fn smallest(&mut self, query: usize, n: usize) -> impl Iterator<Item = (f32, u32)> {
        let slots = &mut self.slots[query * self.room..][..self.lengths[query]];
        slots.select_nth_unstable(n - 1);
        slots[..n].iter().map(|&slot| split(slot))
    }

    /// Drops those whose sum is above `tau`.
    pub fn drop_above(&mut self, query: usize, tau: f32) {
        let slots = &mut self.slots[query * self.room..][..self.lengths[query]];
        let last = u64::from(order_of(tau)) << 32 | u64::from(u32::MAX);
        let mut kept = 0;
        for i in 0..slots.len() {
            let slot = slots[i];
            slots[kept] = slot;
            kept += usize::from(slot <= last);
        }
        self.lengths[query] = kept;
    }

    /// The rows of a query's.
    pub fn rows(&self, query: usize) -> impl Iterator<Item = u32> {
        self.slots[query * self.room..][..self.lengths[query]].iter().map(|&slot| split(slot).1)
    }

    /// Takes the last one's row.
    #[inline]
    pub fn pop(&mut self, query: usize) -> Option<u32> {
        let length = self.lengths[query].checked_sub(1)?;
        self.lengths[query] = length;
        Some(split(self.slots[query * self.room + length]).1)
    }
}

/// Bits that compare as the numbers do.
#[inline]
fn order_of(acc: f32) -> u32 {
    // −0 and 0 are the same sum.
    let bits = (acc + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

#[inline]
fn split(slot: u64) -> (f32, u32) {
    let order = u32::try_from(slot >> 32).unwrap_or(u32::MAX);
    let bits = if order >> 31 == 1 { order & !(1 << 31) } else { !order };
    (f32::from_bits(bits), u32::try_from(slot & u64::from(u32::MAX)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_ordered_as_numbers_and_come_back() {
        let sums = [f32::MIN, -2.5, -1e-45, 0.0, 1e-45, 1.0, f32::MAX, f32::INFINITY];
        assert!(sums.is_sorted_by_key(|&sum| order_of(sum)));
        assert_eq!(order_of(-0.0), order_of(0.0));
        for sum in sums {
            assert_eq!(split(u64::from(order_of(sum)) << 32 | 7), (sum, 7));
        }
    }

    #[test]
    fn the_smallest_stay_when_the_rest_is_dropped() {
        let mut pending = Pending::default();
        pending.reset(1, 2);
        for row in 0..10_u8 {
            assert!(!pending.push(1, f32::from(row) - 5.0, u32::from(row)));
        }
        let mut smallest: Vec<_> = pending.smallest(1, 3).collect();
        smallest.sort_by_key(|pair| pair.1);
        assert_eq!(smallest, [(-5.0, 0), (-4.0, 1), (-3.0, 2)]);
        pending.drop_above(1, -1.0);
        let mut rows: Vec<u32> = pending.rows(1).collect();
        rows.sort_unstable();
        assert_eq!((rows, pending.len(0)), (vec![0, 1, 2, 3, 4], 0));
        while pending.pop(1).is_some() {}
        assert_eq!(pending.len(1), 0);
    }

    #[test]
    fn it_says_when_it_is_full() {
        let mut pending = Pending::default();
        pending.reset(1, 1);
        let filled: Vec<bool> = (0..32_u32).map(|row| pending.push(0, 0.0, row)).collect();
        assert_eq!(filled.iter().position(|&full| full), Some(31));
    }
}
