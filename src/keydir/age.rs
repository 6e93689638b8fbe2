//! The age byte of an entry: what tells which key was used least, for eviction (G4).
//!
//! Eight bits say less than a list in order of use, and cost nothing: the entry has room for them. Eviction
//! compares a handful of entries taken at random and evicts the one whose age is worst; a key that is used
//! is the worst of a handful only if all of them are.
//!
//! - *Lru*: when the key was last used, on a clock of 256 hours. It moves on when a thirty-second part of the
//!   keys was evicted, or came in while the partition filled up; so what counts is not time but how much
//!   has gone by since. It may wrap: eight times as many evictions as there are keys do not leave a
//!   key unused that was never compared.
//! - *Lfu*: how often the key was used, in a counter that ninety thousand uses fill. Each use counts with a
//!   chance that falls as the counter grows, and of the comparisons that spare the key some take a little
//!   off: what was popular once is forgotten in the measure in which other keys had to go.

use crate::sync::{AtomicU8, Ordering};

/// The thirty-second part of the keys makes an hour.
const HOURS_A_TURNOVER: u64 = 32;

/// A key that comes in counts as used a few times, or it would go before anybody could ask for it again.
const LFU_FRESH: u8 = 5;
/// How much rarer each further step of a counter is. Steeper, and keys that are used a dozen times while the
/// store is replaced once would hardly be told from those that never are.
const LFU_RARITY: u32 = 3;
/// Of so many comparisons that a key stands one takes something off. While the store is replaced once a key
/// stands eight: a key that is used thrice meanwhile keeps what it has.
const LFU_PATIENCE: u32 = 4;

/// What the age bytes of a keydir stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Aging {
    /// Nothing: they stay zero, and nobody writes them.
    #[default]
    Off,
    Lru,
    Lfu,
}

/// What readers need to know of it; changes rarely.
pub(super) struct Ages {
    pub(super) aging: Aging,
    hour: AtomicU8,
}

impl Ages {
    pub(super) fn new(aging: Aging) -> Ages {
        // What was loaded has not been used yet, and is older than everything else.
        let hour = match aging {
            Aging::Lru => HOURS_A_TURNOVER as u8,
            Aging::Off | Aging::Lfu => 0,
        };
        Ages { aging, hour: AtomicU8::new(hour) }
    }

    /// Of an entry that was found when the store was opened.
    pub(super) fn loaded(&self) -> u8 {
        match self.aging {
            Aging::Off | Aging::Lru => 0,
            Aging::Lfu => LFU_FRESH,
        }
    }

    /// Of a key that came in.
    pub(super) fn fresh(&self) -> u8 {
        match self.aging {
            Aging::Off => 0,
            Aging::Lru => self.hour(),
            Aging::Lfu => LFU_FRESH,
        }
    }

    /// Of a key of this age that was used just now.
    pub(super) fn used(&self, age: u8, random: impl FnOnce(u32) -> u32) -> u8 {
        match self.aging {
            Aging::Off => age,
            Aging::Lru => self.hour(),
            Aging::Lfu if age == u8::MAX => age,
            Aging::Lfu => {
                let uses_a_step = u32::from(age.saturating_sub(LFU_FRESH)) * LFU_RARITY + 1;
                age + u8::from(random(uses_a_step) == 0)
            }
        }
    }

    /// Of a key of this age that was compared and is still there.
    pub(super) fn compared(&self, age: u8, random: impl FnOnce(u32) -> u32) -> u8 {
        match self.aging {
            Aging::Lfu if random(LFU_PATIENCE) == 0 => age.saturating_sub(1 + age / 8),
            Aging::Off | Aging::Lru | Aging::Lfu => age,
        }
    }

    /// Of two keys the one with the larger badness is evicted.
    pub(super) fn badness(&self, age: u8) -> u8 {
        match self.aging {
            Aging::Off => 0,
            Aging::Lru => self.hour().wrapping_sub(age),
            Aging::Lfu => u8::MAX - age,
        }
    }

    pub(super) fn hour_passed(&self) {
        self.hour.store(self.hour().wrapping_add(1), Ordering::Relaxed);
    }

    fn hour(&self) -> u8 {
        self.hour.load(Ordering::Relaxed)
    }
}

/// Says when an hour of the clock has passed.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    /// Keys that came in or were evicted since.
    moved: u64,
    /// The most keys there ever were: coming in counts beyond that only, or keys that come and go
    /// without an eviction would turn the clock past those that stay.
    len_high: u64,
}

impl Turnover {
    pub(super) fn new(len: u64) -> Turnover {
        Turnover { moved: 0, len_high: len }
    }

    /// A key came in, now there are `len`; true if an hour has passed.
    pub(super) fn came(&mut self, len: u64) -> bool {
        if len <= self.len_high {
            return false;
        }
        self.len_high = len;
        self.went(len)
    }

    /// A key was evicted, now there are `len`; true if an hour has passed.
    pub(super) fn went(&mut self, len: u64) -> bool {
        self.moved += 1;
        let is_over = self.moved >= (len / HOURS_A_TURNOVER).max(1);
        if is_over {
            self.moved = 0;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_the_best_across_a_wrap() {
        let ages = Ages::new(Aging::Lru);
        for _ in 0..600 {
            let before = ages.fresh();
            ages.hour_passed();
            assert!(ages.badness(before) > ages.badness(ages.used(before, |_| 0)));
        }
        assert!(Ages::new(Aging::Lru).badness(0) > 0, "what was loaded is older than what comes");
    }

    /// Breaks if a counter overflows, or cannot tell a hundred uses from ten thousand.
    #[test]
    fn counters_grow_ever_slower_and_shrink_when_compared() {
        let ages = Ages::new(Aging::Lfu);
        let random = &mut fastrand::Rng::with_seed(1);
        let mut counts = Vec::new();
        let mut age = ages.fresh();
        for uses in 1..=10_000_000_u32 {
            age = ages.used(age, |below| random.u32(..below));
            if [100, 10_000, 10_000_000].contains(&uses) {
                counts.push(age);
            }
        }
        assert!((8..20).contains(&counts[0]), "{counts:?}");
        assert!((60..115).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts[2], u8::MAX);
        let mut comparisons = 0;
        while age > LFU_FRESH {
            age = ages.compared(age, |_| 0);
            comparisons += 1;
        }
        assert!((15..40).contains(&comparisons), "{comparisons}");
        assert_eq!((ages.compared(0, |_| 0), ages.compared(9, |_| 1)), (0, 9));
    }

    #[test]
    fn without_eviction_an_age_is_never_written() {
        let ages = Ages::new(Aging::Off);
        ages.hour_passed();
        let all = [ages.loaded(), ages.fresh(), ages.used(0, |_| 0), ages.compared(0, |_| 0)];
        assert_eq!(all, [0; 4]);
    }

    #[test]
    fn keys_that_come_and_go_do_not_turn_the_clock() {
        let mut turnover = Turnover::new(0);
        let hours = (1..=320).filter(|len| turnover.came(*len)).count();
        assert!((60..320).contains(&hours), "{hours} hours while it filled up");
        assert!((0..10_000).all(|_| !turnover.came(320)));
        assert_eq!((0..3200).filter(|_| turnover.went(320)).count(), 320);
    }
}
