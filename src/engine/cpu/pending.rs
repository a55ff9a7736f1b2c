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

    /// Empties it and makes `room` for each of so many queries.
    pub fn reset(&mut self, room: usize, queries: usize) {
        self.room = room;
        self.lengths.clear();
        self.lengths.resize(queries, 0);
        self.slots.resize(self.slots.len().max(queries * self.room), 0);
    }

    /// Puts a reference behind the others; whether that filled the room.
    #[inline]
    pub fn push(&mut self, query: usize, order: i32, row: u32) -> bool {
        let length = self.lengths[query];
        self.slots[query * self.room + length] = slot(order, row);
        self.lengths[query] = length + 1;
        length + 1 == self.room
    }

    /// How many there are.
    pub fn len(&self, query: usize) -> usize {
        self.lengths[query]
    }

    /// The orders and rows of the `n` with the smallest sums, of at least `n`.
    pub fn smallest(&mut self, query: usize, n: usize) -> impl Iterator<Item = (i32, u32)> {
        let slots = &mut self.slots[query * self.room..][..self.lengths[query]];
        slots.select_nth_unstable(n - 1);
        slots[..n].iter().map(|&slot| split(slot))
    }

    /// Drops those whose order is above `tau`.
    pub fn drop_above(&mut self, query: usize, tau: i32) {
        let slots = &mut self.slots[query * self.room..][..self.lengths[query]];
        let last = slot(tau, u32::MAX);
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

/// An order and a row as one number that compares as the order does.
#[inline]
fn slot(order: i32, row: u32) -> u64 {
    u64::from(order.cast_unsigned() ^ 1 << 31) << 32 | u64::from(row)
}

#[inline]
fn split(slot: u64) -> (i32, u32) {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    ((half(slot >> 32) ^ 1 << 31).cast_signed(), half(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_order_as_sums_do_and_come_apart_again() {
        let orders = [i32::MIN, -5, -1, 0, 1, 9, i32::MAX];
        assert!(orders.is_sorted_by_key(|&order| slot(order, 7)));
        for order in orders {
            assert_eq!(split(slot(order, 7)), (order, 7));
        }
    }

    #[test]
    fn the_smallest_stay_when_the_rest_is_dropped() {
        let mut pending = Pending::default();
        pending.reset(Pending::room(1), 2);
        for row in 0..10_u8 {
            assert!(!pending.push(1, i32::from(row) - 5, u32::from(row)));
        }
        let mut smallest: Vec<_> = pending.smallest(1, 3).collect();
        smallest.sort_by_key(|pair| pair.1);
        assert_eq!(smallest, [(-5, 0), (-4, 1), (-3, 2)]);
        pending.drop_above(1, -2);
        let mut rows: Vec<u32> = pending.rows(1).collect();
        rows.sort_unstable();
        assert_eq!((rows, pending.len(0)), (vec![0, 1, 2, 3], 0));
        while pending.pop(1).is_some() {}
        assert_eq!(pending.len(1), 0);
    }

    #[test]
    fn it_says_when_it_is_full() {
        let mut pending = Pending::default();
        pending.reset(Pending::room(1), 1);
        let filled: Vec<bool> = (0..32_u32).map(|row| pending.push(0, 0, row)).collect();
        assert_eq!(filled.iter().position(|&full| full), Some(31));
    }
}
