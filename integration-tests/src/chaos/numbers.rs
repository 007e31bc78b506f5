//! A set of numbers as ranges: the oracle's own, so that it shares no arithmetic with the product.

use std::collections::BTreeMap;

/// Disjoint ranges that do not touch, by their first number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(BTreeMap<u64, u64>);

impl Numbers {
    /// Adds `first` to `last`; returns how many of them were there already.
    pub fn insert(&mut self, first: u64, last: u64) -> u64 {
        let (mut low, mut high, mut known) = (first, last, 0);
        let touching: Vec<(u64, u64)> = self
            .0
            .range(..=last.saturating_add(1))
            .rev()
            .take_while(|(_, end)| end.saturating_add(1) >= first)
            .map(|(begin, end)| (*begin, *end))
            .collect();
        for (begin, end) in touching {
            let (from, until) = (begin.max(first), end.min(last));
            known += if from <= until { until - from + 1 } else { 0 };
            low = low.min(begin);
            high = high.max(end);
            self.0.remove(&begin);
        }
        self.0.insert(low, high);
        known
    }

    /// Adds all of `other`.
    pub fn absorb(&mut self, other: &Self) {
        for (first, last) in &other.0 {
            self.insert(*first, *last);
        }
    }

    /// The ranges between 1 and `last` that are not in the set.
    pub fn holes(&self, last: u64) -> Vec<(u64, u64)> {
        let (mut holes, mut next) = (Vec::new(), 1);
        for (begin, end) in &self.0 {
            if next < *begin && next <= last {
                holes.push((next, (*begin - 1).min(last)));
            }
            next = next.max(end.saturating_add(1));
        }
        if next <= last {
            holes.push((next, last));
        }
        holes
    }

    /// How many numbers of `other` are not in the set.
    pub fn lacks(&self, other: &Self) -> u64 {
        let mut all = self.clone();
        other.0.iter().map(|(first, last)| last - first + 1 - all.insert(*first, *last)).sum()
    }

    /// The highest number, or 0.
    pub fn last(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, last)| *last)
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chaos::seed::Dice;

    #[test]
    fn it_agrees_with_a_set_of_single_numbers() {
        for seed in 0..200 {
            let mut dice = Dice::new(seed);
            let (mut numbers, mut plain) = (Numbers::default(), BTreeSet::new());
            for _ in 0..20 {
                let first = 1 + dice.below(60);
                let last = first + dice.below(12);
                let known = (first..=last).filter(|number| !plain.insert(*number)).count();
                assert_eq!(numbers.insert(first, last), known as u64, "seed {seed}");
            }
            assert_eq!(numbers.count(), plain.len() as u64, "seed {seed}");
            let holes: BTreeSet<u64> = numbers.holes(80).into_iter().flat_map(|(a, b)| a..=b).collect();
            let expected: BTreeSet<u64> = (1..=80).filter(|number| !plain.contains(number)).collect();
            assert_eq!(holes, expected, "seed {seed}");
        }
    }

    #[test]
    fn what_another_set_has_more_is_counted() {
        let (mut own, mut other) = (Numbers::default(), Numbers::default());
        own.insert(1, 10);
        other.insert(5, 14);
        other.insert(20, 20);
        assert_eq!(own.lacks(&other), 5);
        assert_eq!(other.lacks(&other.clone()), 0);
    }
}
