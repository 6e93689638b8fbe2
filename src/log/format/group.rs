//! Commit group: records that were written, and become durable, together (F4).
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | header CRC: CRC-32C, seeded with the file's identity, of bytes 4 to 48 |
//! | 4 | 4 | magic, `RGRP` for a group and `REND` for the closing mark |
//! | 8 | 8 | open id of the file's header |
//! | 16 | 8 | group number, counted from 1 in each file |
//! | 24 | 4 | header CRC of the group before, or of the file's header for the first |
//! | 28 | 4 | length of the records that follow, 0 for the closing mark |
//! | 32 | 4 | payload CRC: CRC-32C of the records' header CRCs without their places, each as 4 bytes, in order |
//! | 36 | 4 | number of records |
//! | 40 | 8 | durable-through: every byte of the file below it was durable before this was written |
//!
//! A record's header CRC covers its body CRC, so the payload CRC vouches for every byte of the
//! records without the values being read a second time. Each header CRC covers the one before it:
//! **the closing mark's header CRC is therefore a digest of the whole file**, down to the last byte
//! of the first value, and is what `FILES` keeps of a sealed file (F1).
//!
//! ## Invariants
//! - **GR1** A group belongs to its place: same open id as the file, number one above, `previous`
//!   equal to the checksum before it. Stale bytes chain to something else, and zeros to nothing.
//! - **GR2** `durable_through` never exceeds the offset of the group that says it.

use super::data_header::FileIdentity;
use super::{FormatError, array_at, check_crc, put, u32_at, u64_at};
use crate::planted::{Bug, is_planted};

/// Length of a group's header, and of the closing mark, in bytes.
pub(crate) const GROUP_HEADER_LEN: usize = 48;

const AT_HEADER_CRC: usize = 0;
const AT_MAGIC: usize = 4;
const AT_OPEN_ID: usize = 8;
const AT_NUMBER: usize = 16;
const AT_PREVIOUS: usize = 24;
const AT_PAYLOAD_LEN: usize = 28;
const AT_PAYLOAD_CRC: usize = 32;
const AT_RECORD_COUNT: usize = 36;
const AT_DURABLE_THROUGH: usize = 40;

const MAGIC_RECORDS: [u8; 4] = *b"RGRP";
const MAGIC_CLOSING: [u8; 4] = *b"REND";

const _: () = assert!(AT_DURABLE_THROUGH + size_of::<u64>() == GROUP_HEADER_LEN);
const _: () = assert!(GROUP_HEADER_LEN.is_multiple_of(8), "L2");

/// What follows a group's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// Records; none at all if only the durable-through offset had news.
    Records,
    /// Nothing, ever again: the file is complete.
    ClosingMark,
}

/// The header of a commit group, or the closing mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) kind: GroupKind,
    pub(crate) open_id: u64,
    pub(crate) number: u64,
    pub(crate) previous: u32,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
    pub(crate) record_count: u32,
    pub(crate) durable_through: u64,
}

impl GroupHeader {
    /// The bytes, and their checksum: the next group names it as its predecessor.
    pub(crate) fn encode(&self, identity: FileIdentity) -> ([u8; GROUP_HEADER_LEN], u32) {
        let magic = match self.kind {
            GroupKind::Records => MAGIC_RECORDS,
            GroupKind::ClosingMark => MAGIC_CLOSING,
        };
        let mut bytes = [0; GROUP_HEADER_LEN];
        put(&mut bytes, AT_MAGIC, magic);
        put(&mut bytes, AT_OPEN_ID, self.open_id.to_le_bytes());
        put(&mut bytes, AT_NUMBER, self.number.to_le_bytes());
        put(&mut bytes, AT_PREVIOUS, self.previous.to_le_bytes());
        put(&mut bytes, AT_PAYLOAD_LEN, self.payload_len.to_le_bytes());
        put(&mut bytes, AT_PAYLOAD_CRC, self.payload_crc.to_le_bytes());
        put(&mut bytes, AT_RECORD_COUNT, self.record_count.to_le_bytes());
        put(&mut bytes, AT_DURABLE_THROUGH, self.durable_through.to_le_bytes());
        let crc = crc32c::crc32c_append(identity.0, &bytes[AT_MAGIC..]);
        put(&mut bytes, AT_HEADER_CRC, crc.to_le_bytes());
        (bytes, crc)
    }

    /// The header at the start of `bytes`, and its checksum; whether it belongs here is for
    /// [`Chain::admit`] to say.
    pub(crate) fn decode(
        bytes: &[u8],
        identity: FileIdentity,
    ) -> Result<(GroupHeader, u32), FormatError> {
        let bytes: [u8; GROUP_HEADER_LEN] = array_at(bytes, 0)?;
        let magic: [u8; 4] = array_at(&bytes, AT_MAGIC)?;
        let kind = match magic {
            MAGIC_RECORDS => GroupKind::Records,
            MAGIC_CLOSING => GroupKind::ClosingMark,
            // Before the checksum: this is how a log usually ends, in zeros.
            _ => return Err(FormatError::Magic { what: "the commit group" }),
        };
        let header_crc = u32_at(&bytes, AT_HEADER_CRC)?;
        let found = crc32c::crc32c_append(identity.0, &bytes[AT_MAGIC..]);
        check_crc("commit group header", header_crc, found)?;
        let header = GroupHeader {
            kind,
            open_id: u64_at(&bytes, AT_OPEN_ID)?,
            number: u64_at(&bytes, AT_NUMBER)?,
            previous: u32_at(&bytes, AT_PREVIOUS)?,
            payload_len: u32_at(&bytes, AT_PAYLOAD_LEN)?,
            payload_crc: u32_at(&bytes, AT_PAYLOAD_CRC)?,
            record_count: u32_at(&bytes, AT_RECORD_COUNT)?,
            durable_through: u64_at(&bytes, AT_DURABLE_THROUGH)?,
        };
        let is_empty = header.payload_len == 0 && header.record_count == 0;
        if !header.payload_len.is_multiple_of(8) {
            Err(FormatError::invalid("the length of a commit group is not a multiple of 8"))
        } else if kind == GroupKind::ClosingMark && !is_empty {
            Err(FormatError::invalid("the closing mark announces records"))
        } else {
            Ok((header, header_crc))
        }
    }

    /// Whether `word`, the first 8 bytes of something, can be the start of a group's header.
    ///
    /// What a search over megabytes tests before it looks closer.
    #[inline]
    pub(crate) fn may_start_with(word: [u8; 8]) -> bool {
        let [.., a, b, c, d] = word;
        matches!([a, b, c, d], MAGIC_RECORDS | MAGIC_CLOSING)
    }
}

/// Makes the checksum of a header good that made-up bytes begin with, if all of it is there.
#[cfg(feature = "sim")]
pub(in crate::log) fn forge_group_header(bytes: &mut [u8], identity: FileIdentity) {
    let Some(covered) = bytes.get(AT_MAGIC..GROUP_HEADER_LEN) else { return };
    let crc = crc32c::crc32c_append(identity.0, covered);
    put(bytes, AT_HEADER_CRC, crc.to_le_bytes());
}

/// Checksum over the records of a group, built while they are encoded or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PayloadCrc(u32);

impl PayloadCrc {
    #[inline]
    pub(crate) fn push(&mut self, record_header_crc: u32) {
        self.0 = crc32c::crc32c_append(self.0, &record_header_crc.to_le_bytes());
    }

    #[inline]
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

/// Where the next group of a file attaches (GR1): the writer fills headers from it, the scanner
/// holds headers against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) open_id: u64,
    /// Number of the next group.
    pub(crate) number: u64,
    /// Checksum of the header before it.
    pub(crate) previous: u32,
}

impl Chain {
    /// The chain of a file that has a header and no group.
    pub(crate) fn start(open_id: u64, data_header_crc: u32) -> Chain {
        Chain { open_id, number: 1, previous: data_header_crc }
    }

    /// The header of the next group; `advance` follows once its checksum is known.
    pub(crate) fn group(
        &self,
        payload_len: u32,
        payload_crc: PayloadCrc,
        record_count: u32,
        durable_through: u64,
    ) -> GroupHeader {
        GroupHeader {
            kind: GroupKind::Records,
            open_id: self.open_id,
            number: self.number,
            previous: self.previous,
            payload_len,
            payload_crc: payload_crc.get(),
            record_count,
            durable_through,
        }
    }

    /// The mark after the last group.
    pub(crate) fn closing_mark(&self, durable_through: u64) -> GroupHeader {
        let empty = self.group(0, PayloadCrc::default(), 0, durable_through);
        GroupHeader { kind: GroupKind::ClosingMark, ..empty }
    }

    /// Refuses a sound header, found at `offset`, of another open or another place (GR1, GR2).
    pub(crate) fn admit(&self, header: &GroupHeader, offset: u64) -> Result<(), FormatError> {
        if is_planted(Bug::StaleGroupRevived) {
            Ok(())
        } else if header.open_id != self.open_id {
            Err(FormatError::Unchained("it is of another open of the store"))
        } else if header.number != self.number {
            Err(FormatError::Unchained("its number does not follow the one before"))
        } else if header.previous != self.previous {
            Err(FormatError::Unchained("it follows another group than the one before it"))
        } else if header.durable_through > offset {
            Err(FormatError::Unchained("it calls bytes durable that come after it"))
        } else {
            Ok(())
        }
    }

    /// Moves on behind a group whose header has this checksum.
    pub(crate) fn advance(&mut self, header_crc: u32) {
        self.number += 1;
        self.previous = header_crc;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{each_flip, hex};
    use super::*;

    const IDENTITY: FileIdentity = FileIdentity(0x210d_8c8e);
    const OPEN_ID: u64 = 0x1122_3344_5566_7788;
    const DATA_HEADER_CRC: u32 = 0x2608_0388;

    /// The group that holds the two golden records, in the golden file.
    const GOLDEN_GROUP: &str = "
        a6b3becc52475250 8877665544332211
        0100000000000000 8803082668000000
        b60d18ec02000000 8000000000000000";

    const GOLDEN_MARK: &str = "
        0b69a0a652454e44 8877665544332211
        0200000000000000 a6b3becc00000000
        0000000000000000 1801000000000000";

    fn group() -> GroupHeader {
        let mut payload_crc = PayloadCrc::default();
        payload_crc.push(0xdd54_75a2);
        payload_crc.push(0xc29f_b3c3);
        Chain::start(OPEN_ID, DATA_HEADER_CRC).group(40 + 64, payload_crc, 2, 128)
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let (bytes, crc) = group().encode(IDENTITY);
        assert_eq!(bytes.to_vec(), hex(GOLDEN_GROUP));
        assert_eq!(crc, 0xccbe_b3a6);
        assert_eq!(GroupHeader::decode(&bytes, IDENTITY), Ok((group(), crc)));

        let mut chain = Chain::start(OPEN_ID, DATA_HEADER_CRC);
        chain.advance(crc);
        let mark = chain.closing_mark(128 + 48 + 40 + 64);
        let (bytes, digest) = mark.encode(IDENTITY);
        assert_eq!(bytes.to_vec(), hex(GOLDEN_MARK));
        assert_eq!(digest, 0xa6a0_690b);
        assert_eq!(GroupHeader::decode(&bytes, IDENTITY), Ok((mark, digest)));
    }

    #[test]
    fn every_flip_is_refused() {
        for golden in [GOLDEN_GROUP, GOLDEN_MARK] {
            each_flip(&hex(golden), |index, bytes| {
                assert!(GroupHeader::decode(bytes, IDENTITY).is_err(), "byte {index}");
            });
        }
    }

    #[test]
    fn every_truncation_is_incomplete() {
        let bytes = hex(GOLDEN_GROUP);
        for len in 0..bytes.len() {
            let incomplete = FormatError::Incomplete { need: GROUP_HEADER_LEN };
            assert_eq!(GroupHeader::decode(&bytes[..len], IDENTITY), Err(incomplete));
        }
    }

    #[test]
    fn zeros_and_other_files_groups_are_refused() {
        let zeros = GroupHeader::decode(&[0; GROUP_HEADER_LEN], IDENTITY);
        assert_eq!(zeros, Err(FormatError::Magic { what: "the commit group" }));
        let other = GroupHeader::decode(&hex(GOLDEN_GROUP), FileIdentity(7)).unwrap_err();
        assert!(matches!(other, FormatError::Checksum { .. }), "{other}");
    }

    #[test]
    fn contradictions_under_a_good_checksum_are_refused() {
        let mark = Chain::start(OPEN_ID, 0).closing_mark(128);
        for header in [
            GroupHeader { payload_len: 12, ..group() },
            GroupHeader { payload_len: 8, ..mark },
            GroupHeader { record_count: 1, ..mark },
        ] {
            let (bytes, _) = header.encode(IDENTITY);
            let error = GroupHeader::decode(&bytes, IDENTITY).unwrap_err();
            assert!(matches!(error, FormatError::Invalid(_)), "{error}");
        }
    }

    /// Without any one of the four, bytes that were in the file before could come alive.
    #[test]
    fn gr1_gr2_only_the_next_group_is_admitted() {
        let chain = Chain::start(OPEN_ID, DATA_HEADER_CRC);
        assert_eq!(chain.admit(&group(), 128), Ok(()));
        for stranger in [
            GroupHeader { open_id: OPEN_ID ^ 1, ..group() },
            GroupHeader { number: 2, ..group() },
            GroupHeader { previous: 0, ..group() },
            GroupHeader { durable_through: 136, ..group() },
        ] {
            let error = chain.admit(&stranger, 128).unwrap_err();
            assert!(matches!(error, FormatError::Unchained(_)), "{error}");
        }
    }

    #[test]
    fn a_search_recognises_both_marks_by_their_first_word() {
        let may_start = |golden| GroupHeader::may_start_with(*hex(golden).first_chunk().unwrap());
        assert!(may_start(GOLDEN_GROUP) && may_start(GOLDEN_MARK));
        assert!(!GroupHeader::may_start_with([0; 8]));
    }
}
