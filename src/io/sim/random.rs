//! Random numbers from a seed (SplitMix64): small, and the same on every machine and release.

#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `bound`, which is not 0. The bias of the remainder does not matter here.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True with a chance of `ratio`. Draws nothing at 0, so that unused faults change no other draw.
    pub(super) fn chance(&mut self, ratio: f64) -> bool {
        ratio > 0.0 && ((self.next() >> 11) as f64) < ratio * (1u64 << 53) as f64
    }
}
