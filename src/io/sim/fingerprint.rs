//! A number for bytes, to tell images of a disk apart: fast, and good enough for what is not hostile.

const MULTIPLIER: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;

#[derive(Default)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// Takes in one sequence; its length counts, so that sequences do not run into each other.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last));
        self.mix(bytes.len() as u64);
    }

    pub(super) fn finish(&self) -> u64 {
        self.0
    }

    fn mix(&mut self, word: u64) {
        let product = (u128::from(self.0 ^ word) | 1 << 64).wrapping_mul(MULTIPLIER);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}
