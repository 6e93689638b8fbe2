//! Where the time comes from: one place, so that tests can choose it.
//!
//! [`Options`](crate::Options) hold a [`Clock`], and whoever needs the time gets it from there. What is only
//! measured, as latencies and rates are, asks `Instant` instead.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::types::ExpiresAt;

#[cfg(any(test, feature = "sim"))]
pub use simulated::SimClock;

/// The time of day, and the time since the machine was started. A clone is the same clock.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    Real,
    /// The beginning of 1970 for ever, so that nothing expires.
    Stopped,
    #[cfg(any(test, feature = "sim"))]
    Sim(SimClock),
}

impl Clock {
    /// Milliseconds since 1970 by the wall clock; zero before that. It jumps when somebody sets it.
    pub(crate) fn wall_ms(&self) -> u64 {
        match self {
            Clock::Real => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            Clock::Stopped => 0,
            #[cfg(any(test, feature = "sim"))]
            Clock::Sim(clock) => clock.wall_ms(),
        }
    }

    /// Milliseconds since the machine was started, sleep included: never goes back, and nobody sets it.
    /// Together with [`wall_ms`](Self::wall_ms) it tells a jump from the passing of time (T1).
    pub(crate) fn boot_ms(&self) -> u64 {
        match self {
            Clock::Real => {
                let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                since.tv_sec.unsigned_abs() * 1000 + since.tv_nsec.unsigned_abs() / 1_000_000
            }
            Clock::Stopped => 0,
            #[cfg(any(test, feature = "sim"))]
            Clock::Sim(clock) => clock.boot_ms(),
        }
    }
}

/// The wall clock may run ahead of the boot clock by this much before nothing is deleted for having
/// expired (T1): more than what is corrected every day, less than what anybody calls a moment.
const SKEW_MAX_MS: u64 = 60_000;

/// What is past, for one open store (T1).
#[derive(Debug)]
pub(crate) struct ExpiryClock {
    clock: Clock,
    /// Wall clock minus boot clock when the store was opened.
    skew_ms: i128,
    /// No time before this is believed any more: something was said to be past then.
    floor_ms: AtomicU64,
}

impl ExpiryClock {
    pub(crate) fn new(clock: Clock) -> ExpiryClock {
        let skew_ms = skew_of(&clock);
        ExpiryClock { clock, skew_ms, floor_ms: AtomicU64::new(0) }
    }

    /// Milliseconds since 1970; it goes on when the wall clock is set back, and is never before what was
    /// past already.
    pub(crate) fn now_ms(&self) -> u64 {
        let unset = u64::try_from(i128::from(self.clock.boot_ms()) + self.skew_ms).unwrap_or(0);
        self.clock.wall_ms().max(unset).max(self.floor_ms.load(Ordering::Relaxed))
    }

    /// Whether that moment has come. Once it has, it does not become future again.
    pub(crate) fn is_past(&self, expires_at: ExpiresAt) -> bool {
        let ms = expires_at.as_ms();
        let is_past = self.now_ms() >= ms;
        if is_past && self.floor_ms.load(Ordering::Relaxed) < ms {
            self.floor_ms.fetch_max(ms, Ordering::Relaxed);
        }
        is_past
    }

    /// Whether a record with this expiry is not to be shown.
    pub(crate) fn hides(&self, expires_at: Option<ExpiresAt>) -> bool {
        expires_at.is_some_and(|at| self.is_past(at))
    }

    /// Whether that moment has come beyond doubt, so that what expired then may be deleted: by the wall
    /// clock alone, and only while it agrees with the boot clock.
    pub(crate) fn is_over(&self, expires_at: ExpiresAt) -> bool {
        let is_over = self.clock.wall_ms() >= expires_at.as_ms() && self.is_trusted();
        is_over && self.is_past(expires_at)
    }

    /// Whether wall clock and boot clock agree.
    pub(crate) fn is_trusted(&self) -> bool {
        (skew_of(&self.clock) - self.skew_ms).unsigned_abs() <= u128::from(SKEW_MAX_MS)
    }
}

fn skew_of(clock: &Clock) -> i128 {
    i128::from(clock.wall_ms()) - i128::from(clock.boot_ms())
}

#[cfg(any(test, feature = "sim"))]
mod simulated {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// A clock that stands still until a test moves it; given to a store with
    /// [`Options::clock`](crate::Options::clock). A clone is the same clock.
    ///
    /// # Example: a jump is not the passing of time
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringcask::sim::SimClock;
    ///
    /// let clock = SimClock::new(1_000_000);
    /// clock.advance(Duration::from_secs(5));
    /// assert_eq!((clock.wall_ms(), clock.boot_ms()), (1_005_000, 5_000));
    /// clock.set(2_000);
    /// assert_eq!((clock.wall_ms(), clock.boot_ms()), (2_000, 5_000));
    /// ```
    #[derive(Clone, Debug, Default)]
    pub struct SimClock(Arc<Hands>);

    #[derive(Debug, Default)]
    struct Hands {
        wall_ms: AtomicU64,
        boot_ms: AtomicU64,
    }

    impl SimClock {
        /// A machine that was started just now, at `wall_ms` milliseconds since 1970.
        pub fn new(wall_ms: u64) -> SimClock {
            let clock = SimClock::default();
            clock.set(wall_ms);
            clock
        }

        /// Lets time pass: both clocks move on.
        pub fn advance(&self, by: Duration) {
            let by_ms = by.as_millis() as u64;
            self.0.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
            self.0.boot_ms.fetch_add(by_ms, Ordering::SeqCst);
        }

        /// Sets the wall clock, as an operator does: the boot clock knows nothing of it.
        pub fn set(&self, wall_ms: u64) {
            self.0.wall_ms.store(wall_ms, Ordering::SeqCst);
        }

        /// Milliseconds since 1970.
        pub fn wall_ms(&self) -> u64 {
            self.0.wall_ms.load(Ordering::SeqCst)
        }

        /// Milliseconds since the machine was started.
        pub fn boot_ms(&self) -> u64 {
            self.0.boot_ms.load(Ordering::SeqCst)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Breaks if one of the two is in another unit, or counts from another moment.
    #[test]
    fn the_real_clocks_are_milliseconds_since_1970_and_since_the_start() {
        let clock = Clock::default();
        let in_2025 = 1_735_689_600_000;
        assert!((in_2025..in_2025 * 2).contains(&clock.wall_ms()));
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime_s: u64 = uptime.split('.').next().unwrap().parse().unwrap();
        // What was read first is not later; and whatever passed in between, it was not a day.
        let uptime_ms = uptime_s * 1000;
        assert!((uptime_ms..uptime_ms + 86_400_000).contains(&clock.boot_ms()));
    }

    #[test]
    fn a_clone_of_a_simulated_clock_is_the_same_clock() {
        let hand = SimClock::new(7);
        let clock = Clock::Sim(hand.clone());
        hand.set(5);
        hand.advance(std::time::Duration::from_secs(1));
        assert_eq!((clock.wall_ms(), clock.boot_ms()), (1005, 1000));
    }

    #[test]
    fn t1_what_is_past_stays_past_and_a_jump_deletes_nothing() {
        let hand = SimClock::new(1_000_000);
        let clock = ExpiryClock::new(Clock::Sim(hand.clone()));
        let at = |ms| ExpiresAt::from_ms(ms).unwrap();
        assert!(!clock.is_past(at(1_000_001)) && clock.is_past(at(1_000_000)));
        hand.set(2_000_000);
        assert!(clock.is_past(at(1_500_000)) && !clock.is_over(at(1_500_000)));
        hand.set(1_000_000);
        assert!(clock.is_past(at(1_500_000)) && !clock.is_past(at(1_500_001)));
        // Set back, time goes on.
        hand.set(10);
        hand.advance(std::time::Duration::from_secs(600));
        assert!(clock.is_past(at(1_600_000)) && !clock.is_past(at(1_600_001)));
        hand.set(1_600_000);
        assert!(clock.is_over(at(1_600_000)) && !clock.is_over(at(1_600_001)));
        hand.advance(std::time::Duration::from_hours(1));
        assert!(clock.is_over(at(5_200_000)) && !clock.is_past(at(5_200_001)));
        hand.set(5_200_000 + 60_000);
        assert!(clock.is_trusted());
        hand.set(5_200_000 + 60_001);
        assert!(!clock.is_trusted());
    }
}
