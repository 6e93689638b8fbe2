//! Filter: whether a data file may hold a key, at a cost of 12 bits for each key.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 64 each | blocks of eight 64-bit words |
//! | at the end | 4 | CRC-32C, seeded with the file's identity, of everything before it |
//!
//! A blocked Bloom filter: all bits of a key are in one block of 512 bits, so a question costs one
//! cache line. Each key sets one bit in each of the block's eight words. The keyed hash is used as
//! it is: `table` chooses the block, six bits of `bucket` for each word choose the bit. Both are in
//! the keydir, so compaction asks without reading the key. Source: Putze, Sanders, Singler, "Cache-,
//! Hash- and Space-Efficient Bloom Filters", 2007; that each word has its bit is their "sectorized"
//! form, and costs nothing at this density.
//!
//! ## Invariants
//! - **FI1** A key of the data file is never denied. Of others at most one in a hundred is not.

use super::super::FormatError;
use super::super::data_header::FileIdentity;
use super::{CRC_LEN, covered};
use crate::types::KeyHash;

const BITS_PER_KEY: u64 = 12;
const WORDS_PER_BLOCK: usize = 8;
const WORD_LEN: usize = size_of::<u64>();

/// Bits of the hash that choose one of a word's 64.
const BIT_CHOICE_BITS: u32 = 6;

const _: () = assert!(WORDS_PER_BLOCK as u32 * BIT_CHOICE_BITS <= u64::BITS);
const _: () = assert!(size_of::<FilterBlock>() == 64);

/// Aligned, so that it is one cache line and not a half of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(64))]
struct FilterBlock([u64; WORDS_PER_BLOCK]);

/// Answers whether a key may be in a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    blocks: Vec<FilterBlock>,
}

impl Filter {
    /// Whether the data file may hold the key with this hash; `false` is certain (FI1).
    #[inline]
    pub(crate) fn may_contain(&self, hash: KeyHash) -> bool {
        match self.blocks.get(self.block_of(hash)) {
            Some(FilterBlock(words)) => {
                words.iter().zip(bits_of(hash)).all(|(word, bit)| word & bit != 0)
            }
            None => false,
        }
    }

    /// The filter of a hint with this many entries, all of them still to be inserted.
    pub(in crate::log) fn for_entries(entries: u64) -> Filter {
        Filter { blocks: vec![FilterBlock::default(); block_count(entries) as usize] }
    }

    pub(in crate::log) fn insert(&mut self, hash: KeyHash) {
        let index = self.block_of(hash);
        if let Some(FilterBlock(words)) = self.blocks.get_mut(index) {
            for (word, bit) in words.iter_mut().zip(bits_of(hash)) {
                *word |= bit;
            }
        }
    }

    /// The bytes of each block in turn; their checksum follows them.
    pub(in crate::log) fn encode(&self) -> impl Iterator<Item = [u8; 64]> {
        self.blocks.iter().map(|FilterBlock(words)| {
            let mut bytes = [0; 64];
            for (field, word) in bytes.chunks_exact_mut(WORD_LEN).zip(words) {
                field.copy_from_slice(&word.to_le_bytes());
            }
            bytes
        })
    }

    /// The filter that `section`, all of it, holds for a hint with this many entries.
    pub(in crate::log) fn decode(
        section: &[u8],
        entries: u64,
        identity: FileIdentity,
    ) -> Result<Filter, FormatError> {
        if section.len() as u64 != section_len(entries) {
            return Err(FormatError::invalid("the filter is not as long as the entries ask for"));
        }
        let words = covered("hint filter", section, identity)?;
        let blocks = words.chunks_exact(size_of::<FilterBlock>()).map(|bytes| {
            let mut block = FilterBlock::default();
            for (word, field) in block.0.iter_mut().zip(bytes.as_chunks().0) {
                *word = u64::from_le_bytes(*field);
            }
            block
        });
        Ok(Filter { blocks: blocks.collect() })
    }

    /// The upper bits of a product spread 32 bits over any number of blocks, evenly.
    #[inline]
    fn block_of(&self, hash: KeyHash) -> usize {
        ((u64::from(hash.table) * self.blocks.len() as u64) >> u32::BITS) as usize
    }
}

/// Length of the filter of a hint with this many entries, checksum included.
pub(in crate::log) fn section_len(entries: u64) -> u64 {
    let blocks_len = block_count(entries).saturating_mul(size_of::<FilterBlock>() as u64);
    blocks_len.saturating_add(CRC_LEN as u64)
}

fn block_count(entries: u64) -> u64 {
    // Saturating, as the number may be forged: no filter is as long as that.
    let blocks = entries.saturating_mul(BITS_PER_KEY).div_ceil(8 * size_of::<FilterBlock>() as u64);
    // Records without an entry are in the filter too.
    blocks.max(1)
}

/// The bit of each word.
#[inline]
fn bits_of(hash: KeyHash) -> [u64; WORDS_PER_BLOCK] {
    std::array::from_fn(|word| {
        let choice = hash.bucket >> (word as u32 * BIT_CHOICE_BITS);
        1 << (choice & u64::from(u64::BITS - 1))
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{each_flip, hex};
    use super::*;
    use crate::route::KeyHasher;
    use crate::types::KeyspaceId;

    const IDENTITY: FileIdentity = FileIdentity(0x210d_8c8e);

    const GOLDEN: &str = "
        0100000000000001 0200000000000000
        0400000000000000 0800000000000000
        1000000000000000 2000000000000000
        4000000000000000 8000000000000000
        97e28b81";

    fn hashes(from: u64, count: u64) -> impl Iterator<Item = KeyHash> {
        let hasher = KeyHasher::new(b"0123456789abcdef");
        (from..from + count).map(move |n| hasher.hash(KeyspaceId(0), &n.to_le_bytes()))
    }

    fn section(filter: &Filter) -> Vec<u8> {
        let mut bytes = filter.encode().flatten().collect::<Vec<u8>>();
        let crc = crc32c::crc32c_append(IDENTITY.0, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let mut filter = Filter::for_entries(2);
        // Bit `n` of word `n`, and once more with another bit of the first word.
        let bucket = (0..8).map(|word| word << (6 * word)).sum();
        filter.insert(KeyHash { bucket, table: u32::MAX, route: 0 });
        filter.insert(KeyHash { bucket: bucket + 56, table: 0, route: 9 });
        assert_eq!(section(&filter), hex(GOLDEN));
        assert_eq!(Filter::decode(&hex(GOLDEN), 2, IDENTITY), Ok(filter));
    }

    #[test]
    fn every_flip_and_every_other_length_is_refused() {
        let bytes = hex(GOLDEN);
        each_flip(&bytes, |index, bytes| {
            assert!(Filter::decode(bytes, 2, IDENTITY).is_err(), "byte {index}");
        });
        for len in 0..bytes.len() {
            assert!(Filter::decode(&bytes[..len], 2, IDENTITY).is_err(), "{len} bytes");
        }
        for entries in [43, 1000, u64::MAX / 2, u64::MAX] {
            assert!(Filter::decode(&bytes, entries, IDENTITY).is_err(), "{entries} entries");
        }
        assert!(Filter::decode(&bytes, 2, FileIdentity(7)).is_err());
    }

    /// A second implementation of the rate, from the formula, would accept a bug in the choice of
    /// bits that correlates them; asking for keys that were never inserted does not.
    #[test]
    fn fi1_nothing_is_denied_and_little_else_is_granted() {
        for count in [1, 40, 1000, 100_000] {
            let mut filter = Filter::for_entries(count);
            hashes(0, count).for_each(|hash| filter.insert(hash));
            let filter = Filter::decode(&section(&filter), count, IDENTITY).unwrap();
            assert!(hashes(0, count).all(|hash| filter.may_contain(hash)), "{count}");
            let asked = 200_000;
            let granted = hashes(1 << 32, asked).filter(|hash| filter.may_contain(*hash)).count();
            let rate = granted as f64 / asked as f64;
            assert!(rate < 0.01, "{count} keys: {rate}");
        }
    }

    #[test]
    fn a_filter_of_no_keys_denies_all() {
        let filter = Filter::decode(&section(&Filter::for_entries(0)), 0, IDENTITY).unwrap();
        assert!(!hashes(0, 100).any(|hash| filter.may_contain(hash)));
    }
}
