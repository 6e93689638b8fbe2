//! A latency histogram of fixed size: four buckets an octave, so a percentile is right to a quarter.

use std::sync::atomic::{AtomicU64, Ordering};

/// Octaves up to 2^40 nanoseconds, eighteen minutes; longer ones count into the last bucket.
const OCTAVES: usize = 40;
const BUCKETS: usize = OCTAVES * 4;

/// Written by one thread, read by any.
pub(crate) struct Recorder([AtomicU64; BUCKETS]);

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Recorder {
    pub(crate) fn record(&self, nanos: u64) {
        let bucket = &self.0[bucket_of(nanos)];
        bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        Histogram { counts: self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect() }
    }
}

/// A distribution of durations in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration in nanoseconds that `percent` of the recorded ones do not exceed, rounded up
    /// to its bucket's end (at most a quarter too long); zero when nothing was recorded.
    ///
    /// # Example: nothing recorded yet
    /// ```
    /// assert_eq!(ringcask::Histogram::default().percentile(99.0), 0);
    /// ```
    pub fn percentile(&self, percent: f64) -> u64 {
        let total = self.count();
        #[expect(clippy::cast_sign_loss, reason = "a percentage of a count is positive")]
        let rank = ((total as f64 * percent / 100.0).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bucket_end(index);
            }
        }
        0
    }

    pub(crate) fn add(&mut self, other: &Histogram) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }
}

fn bucket_of(nanos: u64) -> usize {
    let nanos = nanos.max(4);
    let octave = nanos.ilog2() as usize;
    let quarter = (nanos >> (octave - 2)) as usize & 3;
    (octave * 4 + quarter).min(BUCKETS - 1)
}

fn bucket_end(index: usize) -> u64 {
    let (octave, quarter) = (index / 4, index as u64 % 4);
    if octave < 2 { 4 } else { (5 + quarter) << (octave - 2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_at_most_a_quarter_too_long() {
        let recorder = Recorder::default();
        for nanos in 1..=10_000 {
            recorder.record(nanos);
        }
        let histogram = recorder.snapshot();
        assert_eq!(histogram.count(), 10_000);
        for (percent, exact) in [(50.0, 5_000), (99.0, 9_900), (100.0, 10_000)] {
            let found = histogram.percentile(percent);
            assert!(found >= exact && found <= exact + exact / 4, "{percent}: {found}");
        }
    }

    #[test]
    fn the_longest_duration_has_a_bucket() {
        let recorder = Recorder::default();
        recorder.record(u64::MAX);
        assert_eq!(recorder.snapshot().count(), 1);
    }
}
