//! The same keys and values for every store.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Zipf};

/// Bytes of a key.
pub const KEY_LEN: usize = 20;

/// The key of a record: its number, scattered, so that neighbours by number are none by key.
pub fn key(number: u64) -> [u8; KEY_LEN] {
    let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = *b"k000\0\0\0\0\0\0\0\0........";
    key[4..12].copy_from_slice(&scattered.to_be_bytes());
    key[12..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Values that no compression shortens: slices of one random block.
pub struct Values {
    block: Vec<u8>,
    len: usize,
}

impl Values {
    pub fn new(len: usize) -> Values {
        let mut random = fastrand::Rng::with_seed(7);
        let block = std::iter::repeat_with(|| random.u8(..)).take(len + (1 << 16)).collect();
        Values { block, len }
    }

    pub fn get(&self, number: u64) -> &[u8] {
        let at = (number.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 48) as usize;
        &self.block[at..at + self.len]
    }
}

/// Which record is next.
pub enum Picker {
    Uniform(fastrand::Rng, u64),
    /// Exponent 0.99, as YCSB has it; the frequent ones are scattered over the keys.
    Zipf(SmallRng, Zipf<f64>, u64),
}

impl Picker {
    pub fn uniform(records: u64, seed: u64) -> Picker {
        Picker::Uniform(fastrand::Rng::with_seed(seed), records)
    }

    pub fn zipf(records: u64, seed: u64) -> Picker {
        let zipf =
            Zipf::new(records as f64, 0.99).expect("there are records, and 0.99 is positive");
        Picker::Zipf(SmallRng::seed_from_u64(seed), zipf, records)
    }

    pub fn next(&mut self) -> u64 {
        match self {
            Picker::Uniform(random, records) => random.u64(..*records),
            Picker::Zipf(random, zipf, records) => {
                let rank = zipf.sample(random) as u64;
                rank.wrapping_mul(0x9E37_79B9_7F4A_7C15) % *records
            }
        }
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, percent: u32) -> bool {
        match self {
            Picker::Uniform(random, _) => random.u32(..100) < percent,
            Picker::Zipf(random, ..) => rand::Rng::random_range(random, 0..100) < percent,
        }
    }
}
