//! Index: where each block of a hint is, and the key it begins with.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | number of blocks |
//! | 4 | | a line for each block, in order |
//! | at the end | 4 | CRC-32C, seeded with the file's identity, of everything before it |
//!
//! | offset in a line | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | length of the block |
//! | 4 | 4 | keyspace of its first entry |
//! | 8 | 2 | length of the first entry's key |
//! | 10 | | the key |
//!
//! Blocks follow each other from the end of the file's header, so that their lengths say where they
//! are.
//!
//! ## Invariants
//! - **IX1** First keys increase strictly by (keyspace, key), and the blocks end where the index
//!   begins.

use super::super::data_header::{DATA_HEADER_LEN, FileIdentity};
use super::super::{FormatError, put, u16_at, u32_at};
use super::block::BLOCK_LEN_MAX;
use super::{Section, covered};
use crate::types::KeyspaceId;

const AT_BLOCK_COUNT: usize = 0;
const COUNT_LEN: usize = 4;

const AT_BLOCK_LEN: usize = 0;
const AT_KEYSPACE: usize = 4;
const AT_KEY_LEN: usize = 8;
const LINE_LEN: usize = 10;

const _: () = assert!(AT_BLOCK_COUNT + size_of::<u32>() == COUNT_LEN);
const _: () = assert!(AT_KEY_LEN + size_of::<u16>() == LINE_LEN);

/// A block and the key of its first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockAt<'a> {
    pub(crate) place: Section,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: &'a [u8],
}

/// The blocks of a hint, in order of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

/// Where in the bytes a line is, and the block it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    at: usize,
    block_offset: u64,
}

impl Index {
    /// Number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The block at `index`.
    pub(crate) fn get(&self, index: usize) -> Option<BlockAt<'_>> {
        let line = self.lines.get(index)?;
        let (block, _) = decode_line(self.bytes.get(line.at..)?, line.block_offset).ok()?;
        Some(block)
    }

    /// The only block that can hold the key: the last one that does not begin behind it.
    pub(crate) fn find(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<usize> {
        let is_not_behind = |line: &Line| {
            let bytes = self.bytes.get(line.at..).unwrap_or_default();
            decode_line(bytes, line.block_offset)
                .is_ok_and(|(block, _)| (block.keyspace, block.key) <= (keyspace, key))
        };
        self.lines.partition_point(is_not_behind).checked_sub(1)
    }

    /// The index that `section`, all of it, holds for blocks that end at `blocks_end`.
    pub(in crate::log) fn decode(
        section: Vec<u8>,
        blocks_end: u64,
        identity: FileIdentity,
    ) -> Result<Index, FormatError> {
        let bytes = covered("hint index", &section, identity)?;
        let block_count = u32_at(bytes, AT_BLOCK_COUNT)? as usize;
        let mut lines = Vec::new();
        let mut at = COUNT_LEN;
        let mut block_offset = DATA_HEADER_LEN as u64;
        // No key is empty, so this is in front of all of them.
        let mut before = (KeyspaceId::default(), [].as_slice());
        while at < bytes.len() {
            let (block, line_len) = decode_line(bytes.get(at..).unwrap_or_default(), block_offset)?;
            if (block.keyspace, block.key) <= before {
                return Err(FormatError::invalid("the blocks of the hint are out of order (IX1)"));
            }
            lines.push(Line { at, block_offset });
            at += line_len;
            block_offset += block.place.len;
            before = (block.keyspace, block.key);
        }
        if lines.len() != block_count {
            Err(FormatError::invalid("the index is not as long as its count says"))
        } else if block_offset != blocks_end {
            Err(FormatError::invalid("the blocks do not end where the index begins (IX1)"))
        } else {
            Ok(Index { bytes: section, lines })
        }
    }
}

/// The block that a line speaks of, and the line's length.
fn decode_line(bytes: &[u8], block_offset: u64) -> Result<(BlockAt<'_>, usize), FormatError> {
    let block_len = u32_at(bytes, AT_BLOCK_LEN)?;
    let line_len = LINE_LEN + usize::from(u16_at(bytes, AT_KEY_LEN)?);
    let key = bytes.get(LINE_LEN..line_len).ok_or(FormatError::Incomplete { need: line_len })?;
    if key.is_empty() || block_len as usize > BLOCK_LEN_MAX {
        return Err(FormatError::invalid("the index names a block that cannot be"));
    }
    let place = Section { offset: block_offset, len: u64::from(block_len) };
    let keyspace = KeyspaceId(u32_at(bytes, AT_KEYSPACE)?);
    Ok((BlockAt { place, keyspace, key }, line_len))
}

/// What an index begins with.
pub(in crate::log) fn encode_count(block_count: u32) -> [u8; COUNT_LEN] {
    block_count.to_le_bytes()
}

/// The line of a block in front of its key.
pub(in crate::log) fn encode_line(
    block_len: u32,
    keyspace: KeyspaceId,
    key: &[u8],
) -> [u8; LINE_LEN] {
    let mut line = [0; LINE_LEN];
    put(&mut line, AT_BLOCK_LEN, block_len.to_le_bytes());
    put(&mut line, AT_KEYSPACE, keyspace.0.to_le_bytes());
    put(&mut line, AT_KEY_LEN, (key.len() as u16).to_le_bytes());
    line
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{each_flip, hex};
    use super::*;

    const IDENTITY: FileIdentity = FileIdentity(0x210d_8c8e);

    const GOLDEN: &str = "
        03000000
        0020000000000000 0500 6170706c65
        7000000000000000 0100 63
        8000000007000000 0100 61
        089cde45";

    const BLOCKS_END: u64 = 128 + 0x2000 + 0x70 + 0x80;

    /// The index with its checksum made good.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - super::super::CRC_LEN;
        let crc = crc32c::crc32c_append(IDENTITY.0, &bytes[..end]);
        put(&mut bytes, end, crc.to_le_bytes());
        bytes
    }

    fn encoded(lines: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = encode_count(lines.len() as u32).to_vec();
        for (len, keyspace, key) in lines {
            bytes.extend_from_slice(&encode_line(*len, KeyspaceId(*keyspace), key));
            bytes.extend_from_slice(key);
        }
        bytes.extend_from_slice(&[0; 4]);
        sealed(bytes)
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let bytes = encoded(&[(0x2000, 0, b"apple"), (0x70, 0, b"c"), (0x80, 7, b"a")]);
        assert_eq!(bytes, hex(GOLDEN));
        let index = Index::decode(bytes, BLOCKS_END, IDENTITY).unwrap();
        assert_eq!(index.len(), 3);
        let second = BlockAt {
            place: Section { offset: 128 + 0x2000, len: 0x70 },
            keyspace: KeyspaceId(0),
            key: b"c",
        };
        assert_eq!(index.get(1), Some(second));
        assert_eq!(index.get(3), None);
    }

    #[test]
    fn a_key_is_looked_for_in_the_one_block_that_can_hold_it() {
        let index = Index::decode(hex(GOLDEN), BLOCKS_END, IDENTITY).unwrap();
        for (keyspace, key, block) in [
            (0, "a", None),
            (0, "apple", Some(0)),
            (0, "b", Some(0)),
            (0, "c", Some(1)),
            (0, "zebra", Some(1)),
            (3, "a", Some(1)),
            (7, "Z", Some(1)),
            (7, "a", Some(2)),
            (8, "a", Some(2)),
        ] {
            assert_eq!(index.find(KeyspaceId(keyspace), key.as_bytes()), block, "{keyspace} {key}");
        }
    }

    #[test]
    fn every_flip_and_every_truncation_is_refused() {
        let bytes = hex(GOLDEN);
        each_flip(&bytes, |index, bytes| {
            assert!(Index::decode(bytes.to_vec(), BLOCKS_END, IDENTITY).is_err(), "byte {index}");
        });
        for len in 0..bytes.len() {
            let cut = bytes[..len].to_vec();
            assert!(Index::decode(cut.clone(), BLOCKS_END, IDENTITY).is_err(), "{len} bytes");
            if len >= 4 {
                let cut = Index::decode(sealed(cut), BLOCKS_END, IDENTITY);
                assert!(cut.is_err(), "{len} bytes under a good checksum");
            }
        }
    }

    #[test]
    fn ix1_indexes_that_contradict_themselves_are_refused() {
        let too_long = BLOCK_LEN_MAX as u32 + 1;
        for (lines, blocks_end) in [
            (&[(32, 0, &b"a"[..]), (32, 0, b"a")][..], 192),
            (&[(32, 0, b"b"), (32, 0, b"a")], 192),
            (&[(32, 1, b"a"), (32, 0, b"b")], 192),
            (&[(32, 0, b"a")], 168),
            (&[(32, 0, b"")], 160),
            (&[], 160),
            (&[(too_long, 0, b"a")], 128 + u64::from(too_long)),
        ] {
            let error = Index::decode(encoded(lines), blocks_end, IDENTITY).unwrap_err();
            assert!(matches!(error, FormatError::Invalid(_)), "{lines:?}: {error}");
        }
        for (offset, field) in [(0, 2_u32), (0, 4), (0, u32::MAX), (12, 0x6170_ffff)] {
            let mut bytes = hex(GOLDEN);
            put(&mut bytes, offset, field.to_le_bytes());
            assert!(Index::decode(sealed(bytes), BLOCKS_END, IDENTITY).is_err(), "{offset}");
        }
        let empty = Index::decode(encoded(&[]), 128, IDENTITY).unwrap();
        assert_eq!((empty.len(), empty.find(KeyspaceId(0), b"a")), (0, None));
    }
}
