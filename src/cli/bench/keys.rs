//! Which records are picked, their keys and values.

use std::ops::Range;

/// Exponent of the Zipf distribution, as in YCSB.
const THETA: f64 = 0.99;

/// Values are cut out of this many random bytes, so that they differ and cost no random numbers.
const POOL_LEN_BYTES: usize = 1 << 20;

/// Of values that compress, so many bytes are random, and then said again.
const REPEATED_LEN_BYTES: usize = 64;

/// The same key for the same record in every run, so that a bench can find an earlier one's records. Records that
/// are put one after the other are nowhere near each other in order of keys, as in YCSB.
pub(super) fn key(record: u64) -> String {
    format!("record:{:016x}", mix(record))
}

/// As long as a record's.
pub(super) fn counter_key(record: u64) -> String {
    format!("countr:{record:016x}")
}

/// As long as a record's, and another one for each number.
pub(super) fn new_key(number: u64) -> String {
    format!("absent:{number:016x}")
}

/// Values of one length.
pub(super) struct Values {
    pool: Vec<u8>,
    len: usize,
}

impl Values {
    /// Random bytes, or such as compress to about half.
    pub(super) fn new(len: usize, compressible: bool) -> Values {
        let mut random = Random::new(0);
        let words = (len + POOL_LEN_BYTES).div_ceil(8);
        let mut pool: Vec<u8> = (0..words).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        if compressible {
            for line in pool.chunks_exact_mut(2 * REPEATED_LEN_BYTES) {
                line.copy_within(..REPEATED_LEN_BYTES, REPEATED_LEN_BYTES);
            }
        }
        Values { pool, len }
    }

    pub(super) fn get(&self, number: u64) -> &[u8] {
        let begin = (mix(number) % POOL_LEN_BYTES as u64) as usize;
        &self.pool[begin..begin + self.len]
    }
}

/// Picks records at random.
pub(super) enum Distribution {
    Uniform(Range<u64>),
    Zipf(Zipf),
    /// Few very often, and those are the ones that were put last.
    Latest(Zipf),
}

impl Distribution {
    pub(super) fn uniform(records: u64) -> Distribution {
        Distribution::Uniform(0..records)
    }

    pub(super) fn zipf(records: u64) -> Distribution {
        Distribution::Zipf(Zipf::new(records))
    }

    pub(super) fn latest(records: u64) -> Distribution {
        Distribution::Latest(Zipf::new(records))
    }

    /// One of the records below `end`, which is where new ones are put.
    pub(super) fn pick(&self, random: &mut Random, end: u64) -> u64 {
        match self {
            Distribution::Uniform(records) => random.below(records.end),
            // Scattered: neighbours in rank would otherwise be neighbours on disk.
            Distribution::Zipf(zipf) => mix(zipf.rank(random)) % zipf.count,
            Distribution::Latest(zipf) => end - 1 - zipf.rank(random),
        }
    }
}

/// Ranks by the method of Gray et al., "Quickly Generating Billion-Record Synthetic Databases"
/// (SIGMOD 1994), which YCSB uses and scatters by a hash too; the names are theirs.
pub(super) struct Zipf {
    count: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    /// Below this the rank is 0 or 1.
    second: f64,
}

impl Zipf {
    fn new(count: u64) -> Zipf {
        let zeta: f64 = (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum();
        let second = 1.0 + 0.5_f64.powf(THETA);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - second / zeta);
        Zipf { count, zeta, alpha: 1.0 / (1.0 - THETA), eta, second }
    }

    fn rank(&self, random: &mut Random) -> u64 {
        let uniform = random.fraction();
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < self.second {
            return 1;
        }
        let share = (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        #[expect(clippy::cast_sign_loss, reason = "a share is not negative")]
        let rank = (self.count as f64 * share) as u64;
        rank.min(self.count - 1)
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): a few cycles a number, so that it does not show in rates.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, by the high half of a product; its bias is far below what shows.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 up to 1, without 1.
    fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The output function of `SplitMix64`: every bit of the result depends on every bit of `number`.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_ranks_are_in_range_and_as_frequent_as_the_law_says() {
        for count in [1, 2, 3, 1000] {
            let zipf = Zipf::new(count);
            let mut random = Random::new(count);
            let mut hits = vec![0_u32; count as usize];
            for _ in 0..100_000 {
                hits[zipf.rank(&mut random) as usize] += 1;
            }
            let expected = 100_000.0 / zipf.zeta;
            let found = f64::from(hits[0]);
            assert!((found - expected).abs() < expected * 0.05, "{count}: {found} {expected}");
        }
    }

    #[test]
    fn every_value_is_inside_the_pool() {
        let values = Values::new(3, false);
        for number in 0..10_000 {
            assert_eq!(values.get(number).len(), 3);
        }
    }
}
