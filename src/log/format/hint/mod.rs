//! Hint file: where the newest record of each key of one data file is, in order of keys (H1).
//!
//! ```text
//! hint file = data header (128, kind 2) · block · block · … · index · filter · first key · last key · ranges · trailer (160)
//! ```
//!
//! Nothing lies between the parts, so there is no byte that no checksum covers. All of them but the
//! header's are seeded with the identity of the data file. This module has the trailer; the other
//! parts have modules of their own.
//!
//! | offset | size | field of the trailer |
//! | --- | --- | --- |
//! | 0 | 4 | CRC-32C, seeded with the file's identity, of bytes 4 to 160 |
//! | 4 | 4 | digest of the data file |
//! | 8 | 8 | id of the data file |
//! | 16 | 8 | length of the data file |
//! | 24 | 8 | number of its records |
//! | 32 | 8 | its smallest sequence number |
//! | 40 | 8 | its largest sequence number |
//! | 48 | 8 | length of all its records |
//! | 56 | 8 | number of its tombstones |
//! | 64 | 8 | length of all its tombstones |
//! | 72 | 8 | number of entries |
//! | 80 | 8 | number of entries that are tombstones |
//! | 88 | 8 | offset of the index, where the blocks end |
//! | 96 | 8 | length of the index |
//! | 104 | 8 | offset of the filter, where the index ends |
//! | 112 | 8 | length of the filter |
//! | 120 | 4 | keyspace of the first key |
//! | 124 | 4 | keyspace of the last key |
//! | 128 | 2 | length of the first key, 0 if there is none |
//! | 130 | 2 | length of the last key, 0 if there is none |
//! | 132 | 4 | CRC-32C, seeded with the file's identity, of first key ‖ last key ‖ ranges |
//! | 136 | 8 | length of the ranges |
//! | 144 | 4 | length of this trailer, 160 |
//! | 148 | 2 | format version, 1 |
//! | 150 | 2 | flags: 1 if the data file has intents of batches; the others are zero |
//! | 152 | 8 | magic, `RCHINT` and two zeros |
//!
//! Totals are over all records of the data file, superseded ones too; tombstones are those of ranges too. Magic and version end the file
//! in all versions to come.
//!
//! ## Invariants
//! - **HI1** There is one entry for each (keyspace, key) of the data file: its record with the
//!   largest sequence number, of whatever kind. Entries increase strictly by (keyspace, key). Range
//!   tombstones are no records of a key: they are in a [list](ranges) of their own.
//! - **HI2** A hint belongs to one state of one data file: length, digest, record count and sequence
//!   range are those of [`SealedFile`], or the hint is stale.
//! - **HI3** Header, blocks, index, filter, keys and trailer follow each other without a gap, and end
//!   where the file does.

pub(crate) mod block;
pub(crate) mod filter;
pub(crate) mod index;
pub(crate) mod ranges;

use self::ranges::HintRange;
use super::data_header::{DATA_HEADER_LEN, FileIdentity};
use super::{FORMAT_VERSION, FormatError, array_at, check_crc, put, u16_at, u32_at, u64_at};
use crate::log::files::SealedFile;
use crate::types::{FileId, KeyspaceId, Seqno};

/// Length of the trailer in bytes.
pub(crate) const TRAILER_LEN: usize = 160;

const MAGIC: [u8; 8] = *b"RCHINT\0\0";

const AT_CRC: usize = 0;
const AT_DIGEST: usize = 4;
const AT_FILE: usize = 8;
const AT_FILE_LEN: usize = 16;
const AT_RECORDS: usize = 24;
const AT_SEQNO_MIN: usize = 32;
const AT_SEQNO_MAX: usize = 40;
const AT_RECORD_BYTES: usize = 48;
const AT_TOMBSTONE_RECORDS: usize = 56;
const AT_TOMBSTONE_BYTES: usize = 64;
const AT_ENTRIES: usize = 72;
const AT_TOMBSTONE_ENTRIES: usize = 80;
const AT_INDEX: usize = 88;
const AT_FILTER: usize = 104;
const AT_FIRST_KEYSPACE: usize = 120;
const AT_LAST_KEYSPACE: usize = 124;
const AT_FIRST_KEY_LEN: usize = 128;
const AT_LAST_KEY_LEN: usize = 130;
const AT_KEYS_CRC: usize = 132;
const AT_RANGES_LEN: usize = 136;
const AT_TRAILER_LEN: usize = 144;
const AT_VERSION: usize = 148;
const AT_FLAGS: usize = 150;
const AT_MAGIC: usize = 152;

const _: () = assert!(AT_MAGIC + MAGIC.len() == TRAILER_LEN);

const FLAG_INTENTS: u16 = 1;

/// Length of the checksum that ends the index, and the filter.
const CRC_LEN: usize = size_of::<u32>();

/// Where a part of the hint file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Section {
    fn end(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }

    fn encode(self, trailer: &mut [u8], offset: usize) {
        put(trailer, offset, self.offset.to_le_bytes());
        put(trailer, offset + size_of::<u64>(), self.len.to_le_bytes());
    }

    fn decode(trailer: &[u8], offset: usize) -> Result<Section, FormatError> {
        let len = u64_at(trailer, offset + size_of::<u64>())?;
        Ok(Section { offset: u64_at(trailer, offset)?, len })
    }
}

/// A key that is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HintKey {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: Vec<u8>,
}

/// The smallest and the largest key of a data file; the same one if there is only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) first: HintKey,
    pub(crate) last: HintKey,
}

/// What a hint says about its data file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HintSummary {
    /// The state of the data file that the hint was made from (HI2).
    pub(crate) sealed: SealedFile,
    pub(crate) totals: RecordTotals,
    /// Keys in the data file (HI1).
    pub(crate) entries: u64,
    /// Keys whose newest record in the data file is a tombstone.
    pub(crate) tombstone_entries: u64,
    /// The data file has intents of batches, which have no entries.
    pub(crate) has_intents: bool,
    /// `None` if the data file has no record of a key.
    pub(crate) keys: Option<KeyRange>,
    /// Its range tombstones, in order of sequence numbers.
    pub(crate) ranges: Vec<HintRange>,
}

/// Sums over all records of a data file, superseded ones too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordTotals {
    /// Length of all records, padding included.
    pub(crate) record_bytes: u64,
    /// Records of kind [`Del`](super::record::RecordKind::Del), and range tombstones.
    pub(crate) tombstone_records: u64,
    /// Their length, padding included.
    pub(crate) tombstone_bytes: u64,
}

impl HintSummary {
    /// Checked before the trailer is written and after it is read.
    fn check(&self) -> Result<(), FormatError> {
        let HintSummary { sealed, totals, entries, tombstone_entries, has_intents, keys, ranges } =
            self;
        let range_records = ranges.len() as u64;
        let is_range_sound = if sealed.records == 0 {
            (sealed.seqno_min, sealed.seqno_max) == (Seqno::default(), Seqno::default())
        } else {
            sealed.seqno_min <= sealed.seqno_max
        };
        let is_count_sound = range_records <= sealed.records
            && *entries + u64::from(*has_intents) <= sealed.records - range_records
            && tombstone_entries <= entries
            && range_records <= totals.tombstone_records
            && *tombstone_entries <= totals.tombstone_records - range_records
            && totals.tombstone_records <= sealed.records
            && totals.tombstone_bytes <= totals.record_bytes
            && totals.record_bytes <= sealed.len;
        // Records of batches have no entries either.
        let is_emptiness_sound =
            (*entries == 0 || sealed.records > range_records) && (*entries == 0) == keys.is_none();
        if !is_range_sound {
            Err(FormatError::invalid("the data file of the hint has no sound range"))
        } else if !is_count_sound {
            Err(FormatError::invalid("the totals of the hint contradict each other"))
        } else if !is_emptiness_sound {
            Err(FormatError::invalid("the hint has keys without records, or records without keys"))
        } else if keys.as_ref().is_some_and(|keys| keys.first > keys.last) {
            Err(FormatError::invalid("the last key of the hint comes before the first"))
        } else {
            Ok(())
        }
    }
}

/// The end of a hint file: both keys, the ranges and the trailer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HintTail {
    pub(crate) summary: HintSummary,
    pub(crate) index: Section,
    pub(crate) filter: Section,
}

impl HintTail {
    /// First key, last key, ranges and trailer.
    ///
    /// # Panics
    /// If the summary contradicts itself: written, the hint would be refused.
    pub(crate) fn encode(&self, identity: FileIdentity) -> Vec<u8> {
        assert_eq!(self.summary.check(), Ok(()), "HI1");
        let HintSummary { sealed, totals, entries, tombstone_entries, has_intents, keys, ranges } =
            &self.summary;
        let mut bytes = Vec::new();
        let mut trailer = [0; TRAILER_LEN];
        if let Some(KeyRange { first, last }) = keys {
            put(&mut trailer, AT_FIRST_KEYSPACE, first.keyspace.0.to_le_bytes());
            put(&mut trailer, AT_LAST_KEYSPACE, last.keyspace.0.to_le_bytes());
            put(&mut trailer, AT_FIRST_KEY_LEN, (first.key.len() as u16).to_le_bytes());
            put(&mut trailer, AT_LAST_KEY_LEN, (last.key.len() as u16).to_le_bytes());
            bytes.extend_from_slice(&first.key);
            bytes.extend_from_slice(&last.key);
        }
        let keys_len = bytes.len();
        ranges::encode(ranges, &mut bytes);
        put(&mut trailer, AT_RANGES_LEN, ((bytes.len() - keys_len) as u64).to_le_bytes());
        let keys_crc = crc32c::crc32c_append(identity.0, &bytes);
        put(&mut trailer, AT_KEYS_CRC, keys_crc.to_le_bytes());
        put(&mut trailer, AT_DIGEST, sealed.digest.to_le_bytes());
        put(&mut trailer, AT_FILE, sealed.id.0.to_le_bytes());
        put(&mut trailer, AT_FILE_LEN, sealed.len.to_le_bytes());
        put(&mut trailer, AT_RECORDS, sealed.records.to_le_bytes());
        put(&mut trailer, AT_SEQNO_MIN, sealed.seqno_min.0.to_le_bytes());
        put(&mut trailer, AT_SEQNO_MAX, sealed.seqno_max.0.to_le_bytes());
        put(&mut trailer, AT_RECORD_BYTES, totals.record_bytes.to_le_bytes());
        put(&mut trailer, AT_TOMBSTONE_RECORDS, totals.tombstone_records.to_le_bytes());
        put(&mut trailer, AT_TOMBSTONE_BYTES, totals.tombstone_bytes.to_le_bytes());
        put(&mut trailer, AT_ENTRIES, entries.to_le_bytes());
        put(&mut trailer, AT_TOMBSTONE_ENTRIES, tombstone_entries.to_le_bytes());
        self.index.encode(&mut trailer, AT_INDEX);
        self.filter.encode(&mut trailer, AT_FILTER);
        put(&mut trailer, AT_TRAILER_LEN, (TRAILER_LEN as u32).to_le_bytes());
        put(&mut trailer, AT_VERSION, FORMAT_VERSION.to_le_bytes());
        put(&mut trailer, AT_FLAGS, (if *has_intents { FLAG_INTENTS } else { 0 }).to_le_bytes());
        put(&mut trailer, AT_MAGIC, MAGIC);
        let crc = crc32c::crc32c_append(identity.0, &trailer[AT_DIGEST..]);
        put(&mut trailer, AT_CRC, crc.to_le_bytes());
        bytes.extend_from_slice(&trailer);
        bytes
    }
}

/// A verified trailer, whose keys are still to be read.
#[derive(Clone, Debug)]
pub(crate) struct Trailer {
    bytes: [u8; TRAILER_LEN],
    keys: Section,
}

impl Trailer {
    /// The trailer that is the last [`TRAILER_LEN`] bytes of a file of `file_len` bytes.
    pub(crate) fn decode(
        bytes: &[u8],
        file_len: u64,
        identity: FileIdentity,
    ) -> Result<Trailer, FormatError> {
        let bytes: [u8; TRAILER_LEN] = array_at(bytes, 0)?;
        let magic: [u8; 8] = array_at(&bytes, AT_MAGIC)?;
        if magic != MAGIC {
            return Err(FormatError::Magic { what: "the hint trailer" });
        }
        let version = u16_at(&bytes, AT_VERSION)?;
        if version > FORMAT_VERSION {
            return Err(FormatError::NewerVersion(u32::from(version)));
        }
        let found = crc32c::crc32c_append(identity.0, &bytes[AT_DIGEST..]);
        check_crc("hint trailer", u32_at(&bytes, AT_CRC)?, found)?;
        let flags = u16_at(&bytes, AT_FLAGS)?;
        if version != FORMAT_VERSION {
            return Err(FormatError::invalid("the format version is zero"));
        }
        if u32_at(&bytes, AT_TRAILER_LEN)? != TRAILER_LEN as u32 || flags > FLAG_INTENTS {
            return Err(FormatError::Unsupported("a reserved field of the hint trailer"));
        }
        let keys_len = u64::from(u16_at(&bytes, AT_FIRST_KEY_LEN)?)
            + u64::from(u16_at(&bytes, AT_LAST_KEY_LEN)?);
        let keys_len = keys_len.saturating_add(u64_at(&bytes, AT_RANGES_LEN)?);
        let index = Section::decode(&bytes, AT_INDEX)?;
        let filter = Section::decode(&bytes, AT_FILTER)?;
        let is_gapless = index.offset >= DATA_HEADER_LEN as u64
            && index.end() == Some(filter.offset)
            && filter
                .end()
                .and_then(|end| end.checked_add(keys_len)?.checked_add(TRAILER_LEN as u64))
                == Some(file_len);
        if !is_gapless {
            return Err(FormatError::invalid("the parts of the hint do not fill its file (HI3)"));
        }
        let keys = Section { offset: filter.offset + filter.len, len: keys_len };
        Ok(Trailer { bytes, keys })
    }

    /// Where both keys and the ranges are, inside of the file.
    pub(crate) fn keys(&self) -> Section {
        self.keys
    }

    /// Where it says that index and filter are, both inside of the file.
    #[cfg(feature = "sim")]
    pub(in crate::log) fn sections(&self) -> (Section, Section) {
        let section = |at| Section::decode(&self.bytes, at).unwrap_or_default();
        (section(AT_INDEX), section(AT_FILTER))
    }

    /// What the trailer says, with `keys`, the bytes in front of it.
    pub(crate) fn with_keys(
        &self,
        keys: &[u8],
        identity: FileIdentity,
    ) -> Result<HintTail, FormatError> {
        let bytes = &self.bytes;
        let found = crc32c::crc32c_append(identity.0, keys);
        check_crc("first and last key", u32_at(bytes, AT_KEYS_CRC)?, found)?;
        let cut_short = || FormatError::invalid("the keys of the hint are cut short");
        let first_len = usize::from(u16_at(bytes, AT_FIRST_KEY_LEN)?);
        let last_len = usize::from(u16_at(bytes, AT_LAST_KEY_LEN)?);
        let (first, rest) = keys.split_at_checked(first_len).ok_or_else(cut_short)?;
        let (last, ranges) = rest.split_at_checked(last_len).ok_or_else(cut_short)?;
        let first_keyspace = KeyspaceId(u32_at(bytes, AT_FIRST_KEYSPACE)?);
        let last_keyspace = KeyspaceId(u32_at(bytes, AT_LAST_KEYSPACE)?);
        let keys = match (first.is_empty(), last.is_empty()) {
            (false, false) => Some(KeyRange {
                first: HintKey { keyspace: first_keyspace, key: first.to_vec() },
                last: HintKey { keyspace: last_keyspace, key: last.to_vec() },
            }),
            (true, true) if (first_keyspace.0, last_keyspace.0) == (0, 0) => None,
            _ => return Err(FormatError::invalid("the hint has half a range of keys")),
        };
        let sealed = SealedFile {
            id: FileId(u64_at(bytes, AT_FILE)?),
            len: u64_at(bytes, AT_FILE_LEN)?,
            digest: u32_at(bytes, AT_DIGEST)?,
            records: u64_at(bytes, AT_RECORDS)?,
            seqno_min: Seqno(u64_at(bytes, AT_SEQNO_MIN)?),
            seqno_max: Seqno(u64_at(bytes, AT_SEQNO_MAX)?),
        };
        let summary = HintSummary {
            ranges: ranges::decode(ranges, &sealed)?,
            sealed,
            totals: RecordTotals {
                record_bytes: u64_at(bytes, AT_RECORD_BYTES)?,
                tombstone_records: u64_at(bytes, AT_TOMBSTONE_RECORDS)?,
                tombstone_bytes: u64_at(bytes, AT_TOMBSTONE_BYTES)?,
            },
            entries: u64_at(bytes, AT_ENTRIES)?,
            tombstone_entries: u64_at(bytes, AT_TOMBSTONE_ENTRIES)?,
            has_intents: u16_at(bytes, AT_FLAGS)? & FLAG_INTENTS != 0,
            keys,
        };
        summary.check()?;
        Ok(HintTail {
            summary,
            index: Section::decode(bytes, AT_INDEX)?,
            filter: Section::decode(bytes, AT_FILTER)?,
        })
    }
}

/// The bytes of an index or filter in front of its checksum, which is verified.
fn covered<'a>(
    what: &'static str,
    section: &'a [u8],
    identity: FileIdentity,
) -> Result<&'a [u8], FormatError> {
    let (covered, crc) =
        section.split_last_chunk::<CRC_LEN>().ok_or(FormatError::Incomplete { need: CRC_LEN })?;
    let found = crc32c::crc32c_append(identity.0, covered);
    check_crc(what, u32::from_le_bytes(*crc), found)?;
    Ok(covered)
}

/// Makes the checksum good that ends a made-up index or filter.
#[cfg(feature = "sim")]
pub(in crate::log) fn forge_section(section: &mut [u8], identity: FileIdentity) {
    let Some((covered, crc)) = section.split_last_chunk_mut::<CRC_LEN>() else { return };
    *crc = crc32c::crc32c_append(identity.0, covered).to_le_bytes();
}

/// Makes the checksums good of the trailer that made-up bytes end in, and of the keys in front of it.
#[cfg(feature = "sim")]
pub(in crate::log) fn forge_trailer(bytes: &mut [u8], file_len: u64, identity: FileIdentity) {
    let Some(at) = bytes.len().checked_sub(TRAILER_LEN) else { return };
    let (in_front, trailer) = bytes.split_at_mut(at);
    forge_trailer_crc(trailer, identity);
    let Ok(decoded) = Trailer::decode(trailer, file_len, identity) else { return };
    let Some(at_keys) = at.checked_sub(decoded.keys().len as usize) else { return };
    let crc = crc32c::crc32c_append(identity.0, &in_front[at_keys..]);
    put(trailer, AT_KEYS_CRC, crc.to_le_bytes());
    forge_trailer_crc(trailer, identity);
}

#[cfg(feature = "sim")]
fn forge_trailer_crc(trailer: &mut [u8], identity: FileIdentity) {
    let crc = crc32c::crc32c_append(identity.0, &trailer[AT_DIGEST..]);
    put(trailer, AT_CRC, crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::tests::{each_flip, hex};
    use super::*;
    use crate::ranges::RangeDel;

    const IDENTITY: FileIdentity = FileIdentity(0x210d_8c8e);

    /// Both keys, then the trailer of a hint with one block of 100 bytes.
    const GOLDEN: &str = "
        6170706c65 63
        789750f1 0df0feca 1100000000000000 0010000000000000
        0a00000000000000 6400000000000000 6d00000000000000
        000c000000000000 0300000000000000 7800000000000000
        0800000000000000 0200000000000000
        e400000000000000 1700000000000000 fb00000000000000 4400000000000000
        0000000007000000 05000100 608a8b60 0000000000000000
        a0000000 0100 0000 524348494e540000";

    const FILE_LEN: u64 = 128 + 100 + 23 + 68 + 6 + 160;

    fn tail() -> HintTail {
        let key =
            |keyspace, key: &[u8]| HintKey { keyspace: KeyspaceId(keyspace), key: key.to_vec() };
        HintTail {
            summary: HintSummary {
                sealed: SealedFile {
                    id: FileId(17),
                    len: 4096,
                    digest: 0xcafe_f00d,
                    records: 10,
                    seqno_min: Seqno(100),
                    seqno_max: Seqno(109),
                },
                totals: RecordTotals {
                    record_bytes: 3072,
                    tombstone_records: 3,
                    tombstone_bytes: 120,
                },
                entries: 8,
                tombstone_entries: 2,
                has_intents: false,
                keys: Some(KeyRange { first: key(0, b"apple"), last: key(7, b"c") }),
                ranges: Vec::new(),
            },
            index: Section { offset: 228, len: 23 },
            filter: Section { offset: 251, len: 68 },
        }
    }

    /// What the last bytes of a file say.
    fn decode(bytes: &[u8], file_len: u64) -> Result<HintTail, FormatError> {
        let at = bytes.len().saturating_sub(TRAILER_LEN);
        let trailer = Trailer::decode(&bytes[at..], file_len, IDENTITY)?;
        let keys_start = at.saturating_sub(trailer.keys().len as usize);
        trailer.with_keys(&bytes[keys_start..at], IDENTITY)
    }

    /// The golden tail with a field of its trailer changed, and its checksums made good again.
    fn forged(offset: usize, field: &[u8]) -> Vec<u8> {
        let mut bytes = hex(GOLDEN);
        let at = bytes.len() - TRAILER_LEN;
        bytes[at + offset..][..field.len()].copy_from_slice(field);
        let crc = crc32c::crc32c_append(IDENTITY.0, &bytes[at + AT_DIGEST..]);
        put(&mut bytes, at, crc.to_le_bytes());
        bytes
    }

    #[test]
    fn golden_bytes_of_version_1() {
        assert_eq!(tail().encode(IDENTITY), hex(GOLDEN));
        assert_eq!(decode(&hex(GOLDEN), FILE_LEN), Ok(tail()));
    }

    /// Both keys, two ranges, one without an end, and the start of the trailer.
    const GOLDEN_RANGES: &str = "
        6170706c65 63
        6500000000000000 07000000 00010000 38000000 01000000 0100 0000 62 63
        6d00000000000000 00000000 80020000 30000000 00000000 0100 0000 00";

    fn tail_with_ranges() -> (HintTail, u64) {
        let range = |keyspace, begin, end, seqno| RangeDel {
            keyspace: KeyspaceId(keyspace),
            begin: Bytes::from_static(begin),
            end: Bytes::from_static(end),
            seqno: Seqno(seqno),
        };
        let mut tail = tail();
        tail.summary.tombstone_entries = 1;
        tail.summary.ranges = vec![
            HintRange { range: range(7, b"b", b"c", 101), offset: 256, len: 56 },
            HintRange { range: range(0, b"\0", b"", 109), offset: 640, len: 48 },
        ];
        (tail, FILE_LEN + 30 + 29)
    }

    #[test]
    fn golden_bytes_of_ranges() {
        let (tail, file_len) = tail_with_ranges();
        let bytes = tail.encode(IDENTITY);
        assert_eq!(bytes[..bytes.len() - TRAILER_LEN], hex(GOLDEN_RANGES));
        assert_eq!(decode(&bytes, file_len), Ok(tail));
        each_flip(&bytes, |index, bytes| {
            assert!(decode(bytes, file_len).is_err(), "byte {index}");
        });
    }

    /// HR1: breaks if a list that passes its checksum and is not of this file is believed.
    #[test]
    fn hr1_ranges_of_no_file_are_refused() {
        let (tail, _) = tail_with_ranges();
        let sealed = tail.summary.sealed;
        let list = hex(GOLDEN_RANGES)[6..].to_vec();
        assert_eq!(ranges::decode(&list, &sealed), Ok(tail.summary.ranges));
        for len in (1..list.len()).filter(|len| *len != 30) {
            assert!(ranges::decode(&list[..len], &sealed).is_err(), "{len} bytes");
        }
        for (offset, byte) in [(0, 99), (0, 0x6d), (30, 0x65), (30, 0x6e), (14, 1), (26, 1)] {
            let mut list = list.clone();
            list[offset] = byte;
            assert!(ranges::decode(&list, &sealed).is_err(), "{offset} {byte}");
        }
    }

    #[test]
    fn every_flip_and_every_truncation_is_refused() {
        let bytes = hex(GOLDEN);
        each_flip(&bytes, |index, bytes| {
            assert!(decode(bytes, FILE_LEN).is_err(), "byte {index}");
        });
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], FILE_LEN).is_err(), "{len} bytes");
        }
        assert!(Trailer::decode(&bytes[6..], FILE_LEN, FileIdentity(7)).is_err());
    }

    #[test]
    fn a_newer_version_is_not_damage() {
        let mut bytes = hex(GOLDEN);
        let at = bytes.len() - TRAILER_LEN;
        bytes[at + AT_VERSION] = 2;
        assert_eq!(decode(&bytes, FILE_LEN), Err(FormatError::NewerVersion(2)));
        for (offset, field) in [(AT_FLAGS, 2), (AT_TRAILER_LEN, 168)] {
            let error = decode(&forged(offset, &[field]), FILE_LEN).unwrap_err();
            assert!(matches!(error, FormatError::Unsupported(_)), "{offset}: {error}");
        }
    }

    /// HI3: what the trailer says about lengths is all that a reader allocates for.
    #[test]
    fn hi3_parts_that_do_not_fill_the_file_are_refused() {
        assert_eq!(decode(&forged(AT_CRC, &[]), FILE_LEN), Ok(tail()));
        for file_len in [0, 165, FILE_LEN - 1, FILE_LEN + 1, u64::MAX] {
            assert!(decode(&hex(GOLDEN), file_len).is_err(), "{file_len}");
        }
        for offset in [AT_INDEX, AT_INDEX + 8, AT_FILTER, AT_FILTER + 8, AT_RANGES_LEN] {
            for forgery in [2, 1, 127, 229, 1 << 32, u64::MAX - 22, u64::MAX] {
                let bytes = forged(offset, &u64::to_le_bytes(forgery));
                let error = decode(&bytes, FILE_LEN).unwrap_err();
                assert!(matches!(error, FormatError::Invalid(_)), "{offset} {forgery}: {error}");
            }
        }
        for offset in [AT_FIRST_KEY_LEN, AT_LAST_KEY_LEN] {
            for forgery in [0, 4, 6, u16::MAX] {
                let bytes = forged(offset, &u16::to_le_bytes(forgery));
                assert!(decode(&bytes, FILE_LEN).is_err(), "{offset} {forgery}");
            }
        }
    }

    #[test]
    fn hi1_summaries_that_contradict_themselves_are_refused() {
        for (offset, byte) in [
            (AT_RECORDS, 0),
            (AT_RECORDS, 7),
            (AT_SEQNO_MIN, 110),
            (AT_SEQNO_MAX, 99),
            (AT_RECORD_BYTES + 1, 0),
            (AT_RECORD_BYTES + 1, 17),
            (AT_TOMBSTONE_RECORDS, 1),
            (AT_TOMBSTONE_RECORDS, 11),
            (AT_TOMBSTONE_BYTES + 1, 13),
            (AT_ENTRIES, 0),
            (AT_ENTRIES, 1),
            (AT_ENTRIES, 11),
            (AT_TOMBSTONE_ENTRIES, 4),
            (AT_TOMBSTONE_ENTRIES, 9),
            (AT_FIRST_KEYSPACE, 8),
            (AT_VERSION, 0),
        ] {
            let error = decode(&forged(offset, &[byte]), FILE_LEN).unwrap_err();
            assert!(matches!(error, FormatError::Invalid(_)), "{offset} {byte}: {error}");
        }
    }
}
