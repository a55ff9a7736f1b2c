//! Which adapters are one card: a card may be there through two backends, through two drivers of one backend, or through a
//! driver that is installed twice. Looks at what drivers say and at nothing else.

/// What a driver says of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown<'a> {
    /// Through which backend it is there.
    pub backend: &'a str,
    /// Where the card is on the PCI bus; empty where the driver does not say.
    pub bus_id: &'a str,
    /// How many variants and optional features it has through this driver.
    pub worth: (usize, usize),
}

/// The places of those that are different cards, in their order. Of several drivers of one card in one backend, the one
/// stays that has most variants, then most features, then the first.
pub(super) fn each_card_once(shown: &[Shown<'_>]) -> Vec<usize> {
    let same_card =
        |a: &Shown<'_>, b: &Shown<'_>| !a.bus_id.is_empty() && (a.backend, a.bus_id) == (b.backend, b.bus_id);
    let beaten = |at: usize| {
        let others = shown.iter().enumerate().filter(|(other, by)| *other != at && same_card(by, &shown[at]));
        others.into_iter().any(|(other, by)| by.worth > shown[at].worth || (by.worth == shown[at].worth && other < at))
    };
    (0..shown.len()).filter(|&at| !beaten(at)).collect()
}

/// The places of the different cards of the backend that has the most of them, the first of several such backends.
pub(super) fn through_one_backend(shown: &[Shown<'_>]) -> Vec<usize> {
    let mut by_backend: Vec<Vec<usize>> = Vec::new();
    for at in each_card_once(shown) {
        match by_backend.iter_mut().find(|same| shown[same[0]].backend == shown[at].backend) {
            Some(same) => same.push(at),
            None => by_backend.push(vec![at]),
        }
    }
    // The first of equals: `max_by_key` would take the last.
    by_backend.into_iter().rev().max_by_key(Vec::len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<'a>(backend: &'a str, bus_id: &'a str, worth: (usize, usize)) -> Shown<'a> {
        Shown { backend, bus_id, worth }
    }

    #[test]
    fn a_card_of_two_drivers_counts_once_through_the_better_one() {
        let (one, two) = ("0000:01:00.0", "0000:02:00.0");
        for (all, expected) in [
            // More variants, then more features, then the first.
            (vec![shown("vulkan", one, (2, 3)), shown("vulkan", one, (3, 3))], vec![1]),
            (vec![shown("vulkan", one, (3, 2)), shown("vulkan", one, (3, 3))], vec![1]),
            (vec![shown("vulkan", one, (3, 3)), shown("vulkan", one, (2, 4))], vec![0]),
            (vec![shown("vulkan", one, (3, 3)); 3], vec![0]),
            // Two cards by two drivers, which list them one after the other.
            (
                vec![
                    shown("vulkan", one, (2, 3)),
                    shown("vulkan", two, (2, 3)),
                    shown("vulkan", one, (3, 3)),
                    shown("vulkan", two, (3, 3)),
                ],
                vec![2, 3],
            ),
            // Equal cards whose driver does not say where they are.
            (vec![shown("vulkan", "", (3, 3)); 2], vec![0, 1]),
            (vec![shown("vulkan", "", (3, 3)), shown("vulkan", one, (3, 3))], vec![0, 1]),
            (vec![], vec![]),
        ] {
            assert_eq!(each_card_once(&all), expected, "{all:?}");
            assert_eq!(through_one_backend(&all), expected, "{all:?}");
        }
    }

    #[test]
    fn a_card_of_two_backends_counts_once_through_the_backend_that_has_most_cards() {
        let (one, two) = ("0000:01:00.0", "0000:02:00.0");
        for (all, expected) in [
            (vec![shown("vulkan", one, (3, 3)), shown("dx12", one, (2, 1))], vec![0]),
            (vec![shown("dx12", "", (2, 1)), shown("vulkan", "", (3, 3))], vec![0]),
            (vec![shown("vulkan", one, (3, 3)), shown("dx12", one, (2, 1)), shown("dx12", two, (2, 1))], vec![1, 2]),
            // Two drivers of one card are no two cards.
            (
                vec![
                    shown("vulkan", one, (3, 3)),
                    shown("vulkan", one, (2, 3)),
                    shown("vulkan", one, (2, 3)),
                    shown("dx12", one, (2, 1)),
                    shown("dx12", two, (2, 1)),
                ],
                vec![3, 4],
            ),
        ] {
            assert_eq!(through_one_backend(&all), expected, "{all:?}");
        }
    }
}
