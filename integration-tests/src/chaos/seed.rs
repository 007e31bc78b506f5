//! Random numbers from a seed: the same seed gives the same faults. Never asks the system for randomness.

use std::time::Duration;

/// `SplitMix64`: every seed is as good as any other.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        self.roll() % bound
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let count = u64::try_from(choices.len()).expect("a list is short");
        let index = usize::try_from(self.below(count)).expect("it is below a length");
        &choices[index]
    }

    /// A length from `least` to `most`.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_millis()).unwrap_or(u64::MAX - 1);
        least + Duration::from_millis(self.below(span + 1))
    }
}

/// The seed of one range of a run.
pub fn of_range(seed: u64, range: u64) -> u64 {
    Dice::new(seed ^ range.wrapping_mul(0xd134_2543_de82_ef95)).roll()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let rolls = |seed| {
            let mut dice = Dice::new(seed);
            (0..8).map(|_| dice.roll()).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        assert_ne!(of_range(7, 0), of_range(7, 1));
    }

    #[test]
    fn a_length_lies_between_its_ends() {
        let mut dice = Dice::new(1);
        let (least, most) = (Duration::from_millis(500), Duration::from_secs(3));
        for _ in 0..1_000 {
            let length = dice.between(least, most);
            assert!((least..=most).contains(&length), "{length:?}");
        }
    }
}
