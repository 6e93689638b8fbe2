//! Header of a data file: what the file is, and whose (F2).
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic, `RCASK` and three zeros |
//! | 8 | 2 | format version, 1 |
//! | 10 | 1 | file kind: 1 data, 2 hint, 3 encrypted hint, 4 key run |
//! | 11 | 1 | zero |
//! | 12 | 4 | length of this header, 128 |
//! | 16 | 16 | store id |
//! | 32 | 4 | partition |
//! | 36 | 4 | partition count when the file was created |
//! | 40 | 8 | file id |
//! | 48 | 8 | map epoch when the file was created |
//! | 56 | 16 | hash key |
//! | 72 | 8 | open id: random, one per open of the store |
//! | 80 | 8 | creation time in milliseconds since 1970 |
//! | 88 | 8 | id of the key that its records are encrypted with, 0 if they are not |
//! | 96 | 28 | zeros |
//! | 124 | 4 | CRC-32C of bytes 0 to 124 |
//!
//! The header repeats what MANIFEST says so that a flipped digit there cannot misroute keys, and so
//! that MANIFEST can be rebuilt from any data file. Magic and version stay where they are in all
//! versions to come: a newer file is told from a damaged one before its checksum is looked for.

use super::{FORMAT_VERSION, FormatError, array_at, check_crc, put, u8_at, u16_at, u32_at, u64_at};
use crate::planted::{Bug, is_planted};
use crate::types::{FileId, KeyId, PartitionId, StoreId};

/// Length of the header in bytes; the first commit group starts here.
pub(crate) const DATA_HEADER_LEN: usize = 128;

const MAGIC: [u8; 8] = *b"RCASK\0\0\0";

const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 8;
const AT_KIND: usize = 10;
const AT_RESERVED_BYTE: usize = 11;
const AT_HEADER_LEN: usize = 12;
const AT_STORE: usize = 16;
const AT_PARTITION: usize = 32;
const AT_PARTITION_COUNT: usize = 36;
const AT_FILE: usize = 40;
const AT_MAP_EPOCH: usize = 48;
const AT_HASH_KEY: usize = 56;
const AT_OPEN_ID: usize = 72;
const AT_CREATED_AT_MS: usize = 80;
const AT_KEY: usize = 88;
const AT_RESERVED: usize = 96;
const AT_CRC: usize = 124;

const _: () = assert!(AT_CRC + size_of::<u32>() == DATA_HEADER_LEN);
const _: () = assert!(DATA_HEADER_LEN.is_multiple_of(8), "L2");

/// What a file of a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum FileKind {
    Data = 1,
    Hint = 2,
    /// A hint inside of encrypted pages, see [`sealed`](crate::log::hint_file).
    SealedHint = 3,
    /// The keys of several data files in one order, see [`key_run`](crate::log::key_run).
    KeyRun = 4,
}

impl FileKind {
    fn from_byte(byte: u8) -> Option<FileKind> {
        match byte {
            1 => Some(FileKind::Data),
            2 => Some(FileKind::Hint),
            3 => Some(FileKind::SealedHint),
            4 => Some(FileKind::KeyRun),
            _ => None,
        }
    }
}

/// Seed of every header checksum in one file (L3).
///
/// It is the CRC-32C of store id, partition and file id, so the checksums in the file are those of
/// the bytes with these three put in front. A file that was renamed, restored into another place,
/// or read through a wrong entry of the keydir does not verify, at no cost per record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileIdentity(pub(crate) u32);

impl FileIdentity {
    pub(crate) fn new(store: StoreId, partition: PartitionId, file: FileId) -> FileIdentity {
        let crc = crc32c::crc32c(&store.0);
        let crc = crc32c::crc32c_append(crc, &partition.0.to_le_bytes());
        FileIdentity(crc32c::crc32c_append(crc, &file.0.to_le_bytes()))
    }

    /// A place in the file; `offset` is a multiple of 8 (L2).
    #[inline]
    pub(crate) fn at(self, offset: u64) -> Place {
        Place { identity: self, offset }
    }
}

/// Which file a record is in, and where in it: its header's checksum says both, so that a copy of it
/// never verifies anywhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) identity: FileIdentity,
    pub(crate) offset: u64,
}

impl Place {
    /// So many bytes further on in the file.
    #[inline]
    pub(crate) fn plus(self, len: usize) -> Place {
        Place { offset: self.offset + len as u64, ..self }
    }

    /// What a checksum here is told from one elsewhere by: another for each place of a file, which has
    /// less than 2³² of them.
    #[inline]
    pub(super) fn mask(self) -> u32 {
        if is_planted(Bug::PlaceIgnored) { 0 } else { (self.offset / 8) as u32 }
    }
}

/// Which file a reader means to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectedFile {
    pub(crate) kind: FileKind,
    pub(crate) store: StoreId,
    pub(crate) partition: PartitionId,
    pub(crate) file: FileId,
    pub(crate) hash_key: [u8; 16],
}

impl ExpectedFile {
    pub(crate) fn identity(&self) -> FileIdentity {
        FileIdentity::new(self.store, self.partition, self.file)
    }
}

/// The first 128 bytes of a data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataHeader {
    pub(crate) kind: FileKind,
    pub(crate) store: StoreId,
    pub(crate) partition: PartitionId,
    pub(crate) partition_count: u32,
    pub(crate) file: FileId,
    pub(crate) map_epoch: u64,
    pub(crate) hash_key: [u8; 16],
    pub(crate) open_id: u64,
    pub(crate) created_at_ms: u64,
    /// What is in a file of another key than the newest is to be rewritten; which key a record needs it says
    /// itself.
    pub(crate) key: KeyId,
}

impl DataHeader {
    pub(crate) fn identity(&self) -> FileIdentity {
        FileIdentity::new(self.store, self.partition, self.file)
    }

    /// The bytes, and their checksum: the first commit group names it as its predecessor.
    pub(crate) fn encode(&self) -> ([u8; DATA_HEADER_LEN], u32) {
        let mut bytes = [0; DATA_HEADER_LEN];
        put(&mut bytes, AT_MAGIC, MAGIC);
        put(&mut bytes, AT_VERSION, FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, AT_KIND, [self.kind as u8]);
        put(&mut bytes, AT_HEADER_LEN, (DATA_HEADER_LEN as u32).to_le_bytes());
        put(&mut bytes, AT_STORE, self.store.0);
        put(&mut bytes, AT_PARTITION, self.partition.0.to_le_bytes());
        put(&mut bytes, AT_PARTITION_COUNT, self.partition_count.to_le_bytes());
        put(&mut bytes, AT_FILE, self.file.0.to_le_bytes());
        put(&mut bytes, AT_MAP_EPOCH, self.map_epoch.to_le_bytes());
        put(&mut bytes, AT_HASH_KEY, self.hash_key);
        put(&mut bytes, AT_OPEN_ID, self.open_id.to_le_bytes());
        put(&mut bytes, AT_CREATED_AT_MS, self.created_at_ms.to_le_bytes());
        put(&mut bytes, AT_KEY, self.key.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..AT_CRC]);
        put(&mut bytes, AT_CRC, crc.to_le_bytes());
        (bytes, crc)
    }

    /// The header at the start of `bytes`, and its checksum.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(DataHeader, u32), FormatError> {
        let version = check_magic(bytes)?;
        if version > FORMAT_VERSION {
            return Err(FormatError::NewerVersion(u32::from(version)));
        }
        let bytes: [u8; DATA_HEADER_LEN] = array_at(bytes, 0)?;
        let crc = u32_at(&bytes, AT_CRC)?;
        check_crc("data file header", crc, crc32c::crc32c(&bytes[..AT_CRC]))?;
        if version != FORMAT_VERSION {
            return Err(FormatError::invalid("the format version is zero"));
        }
        check_reserved(&bytes)?;
        let header = DataHeader {
            kind: FileKind::from_byte(u8_at(&bytes, AT_KIND)?)
                .ok_or(FormatError::Unsupported("the file kind"))?,
            store: StoreId(array_at(&bytes, AT_STORE)?),
            partition: PartitionId(u32_at(&bytes, AT_PARTITION)?),
            partition_count: u32_at(&bytes, AT_PARTITION_COUNT)?,
            file: FileId(u64_at(&bytes, AT_FILE)?),
            map_epoch: u64_at(&bytes, AT_MAP_EPOCH)?,
            hash_key: array_at(&bytes, AT_HASH_KEY)?,
            open_id: u64_at(&bytes, AT_OPEN_ID)?,
            created_at_ms: u64_at(&bytes, AT_CREATED_AT_MS)?,
            key: KeyId(u64_at(&bytes, AT_KEY)?),
        };
        Ok((header, crc))
    }

    /// Refuses a sound header of another file.
    ///
    /// Map epoch and partition count are not compared: files written before a repartition stay.
    pub(crate) fn check_expected(&self, expected: &ExpectedFile) -> Result<(), FormatError> {
        if self.store != expected.store {
            Err(FormatError::Foreign("store"))
        } else if self.partition != expected.partition {
            Err(FormatError::Foreign("partition"))
        } else if self.file != expected.file {
            Err(FormatError::Foreign("file id"))
        } else if self.kind != expected.kind {
            Err(FormatError::Foreign("kind of file"))
        } else if self.hash_key != expected.hash_key {
            Err(FormatError::Foreign("hash key"))
        } else {
            Ok(())
        }
    }
}

/// Makes the checksum of a header good that made-up bytes begin with, if all of it is there.
#[cfg(feature = "sim")]
pub(in crate::log) fn forge_data_header(bytes: &mut [u8]) {
    let Some(header) = bytes.get_mut(..DATA_HEADER_LEN) else { return };
    let crc = crc32c::crc32c(&header[..AT_CRC]);
    put(header, AT_CRC, crc.to_le_bytes());
}

/// The version, which needs no more than the first ten bytes in any version.
fn check_magic(bytes: &[u8]) -> Result<u16, FormatError> {
    let need_all = |_| FormatError::Incomplete { need: DATA_HEADER_LEN };
    let magic: [u8; 8] = array_at(bytes, AT_MAGIC).map_err(need_all)?;
    if magic == MAGIC {
        u16_at(bytes, AT_VERSION).map_err(need_all)
    } else {
        Err(FormatError::Magic { what: "the data file header" })
    }
}

/// Reserved bytes are zero in version 1; anything else carries a meaning this build would ignore.
fn check_reserved(bytes: &[u8; DATA_HEADER_LEN]) -> Result<(), FormatError> {
    let zeros: [u8; AT_CRC - AT_RESERVED] = array_at(bytes, AT_RESERVED)?;
    if u32_at(bytes, AT_HEADER_LEN)? != DATA_HEADER_LEN as u32 {
        Err(FormatError::Unsupported("the header length"))
    } else if u8_at(bytes, AT_RESERVED_BYTE)? != 0 || zeros.iter().any(|byte| *byte != 0) {
        Err(FormatError::Unsupported("a reserved header field"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{each_flip, hex};
    use super::*;

    const GOLDEN: &str = "
        524341534b000000 0100010080000000
        1011121314151617 18191a1b1c1d1e1f
        0300000004000000 1100000000000000
        0200000000000000 a0a1a2a3a4a5a6a7
        a8a9aaabacadaeaf 8877665544332211
        00c02cc899010000 0000000000000000
        0000000000000000 0000000000000000
        0000000000000000 0000000088030826";

    fn header() -> DataHeader {
        DataHeader {
            kind: FileKind::Data,
            store: StoreId(std::array::from_fn(|index| 0x10 + index as u8)),
            partition: PartitionId(3),
            partition_count: 4,
            file: FileId(17),
            map_epoch: 2,
            hash_key: std::array::from_fn(|index| 0xa0 + index as u8),
            open_id: 0x1122_3344_5566_7788,
            created_at_ms: 1_760_000_000_000,
            key: KeyId::NONE,
        }
    }

    fn expected() -> ExpectedFile {
        let DataHeader { kind, store, partition, file, hash_key, .. } = header();
        ExpectedFile { kind, store, partition, file, hash_key }
    }

    /// The header with some bytes changed and its checksum made good again.
    fn forged(offset: usize, field: &[u8]) -> [u8; DATA_HEADER_LEN] {
        let (mut bytes, _) = header().encode();
        bytes[offset..offset + field.len()].copy_from_slice(field);
        let crc = crc32c::crc32c(&bytes[..AT_CRC]);
        put(&mut bytes, AT_CRC, crc.to_le_bytes());
        bytes
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let (bytes, crc) = header().encode();
        assert_eq!(bytes.to_vec(), hex(GOLDEN));
        assert_eq!(crc, 0x2608_0388);
        assert_eq!(DataHeader::decode(&bytes), Ok((header(), crc)));
        assert_eq!(header().identity(), FileIdentity(0x210d_8c8e));
        assert_eq!(header().identity(), expected().identity());
    }

    #[test]
    fn every_flip_is_refused() {
        each_flip(&hex(GOLDEN), |index, bytes| {
            assert!(DataHeader::decode(bytes).is_err(), "byte {index}");
        });
    }

    #[test]
    fn every_truncation_is_incomplete() {
        let bytes = hex(GOLDEN);
        for len in 0..bytes.len() {
            let incomplete = FormatError::Incomplete { need: DATA_HEADER_LEN };
            assert_eq!(DataHeader::decode(&bytes[..len]), Err(incomplete), "{len} bytes");
        }
    }

    /// A newer version may use any layout behind the version itself, so its checksum is not ours to
    /// judge, and a user who downgraded must not be told that the disk is damaged.
    #[test]
    fn a_newer_version_is_not_damage() {
        let mut bytes = hex(GOLDEN);
        put(&mut bytes, AT_VERSION, 2_u16.to_le_bytes());
        bytes[100] = 1;
        assert_eq!(DataHeader::decode(&bytes), Err(FormatError::NewerVersion(2)));
        assert_eq!(DataHeader::decode(&bytes[..10]), Err(FormatError::NewerVersion(2)));
        bytes[0] = b'X';
        assert!(matches!(DataHeader::decode(&bytes), Err(FormatError::Magic { .. })));
    }

    #[test]
    fn unknown_fields_under_a_good_checksum_are_unsupported() {
        for (offset, field) in [
            (AT_KIND, &[5][..]),
            (AT_RESERVED_BYTE, &[1]),
            (AT_HEADER_LEN, &[136]),
            (AT_RESERVED, &[1]),
            (AT_CRC - 1, &[1]),
        ] {
            let error = DataHeader::decode(&forged(offset, field)).unwrap_err();
            assert!(matches!(error, FormatError::Unsupported(_)), "offset {offset}: {error}");
        }
        let error = DataHeader::decode(&forged(AT_VERSION, &[0, 0])).unwrap_err();
        assert!(matches!(error, FormatError::Invalid(_)), "{error}");
    }

    #[test]
    fn the_key_of_the_records_is_where_it_is_documented() {
        let key = KeyId(0x0102_0304_0506_0708);
        let (bytes, _) = DataHeader { key, ..header() }.encode();
        assert_eq!(bytes[88..96], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(DataHeader::decode(&bytes).unwrap().0.key, key);
    }

    #[test]
    fn a_file_in_the_place_of_another_is_foreign() {
        assert_eq!(header().check_expected(&expected()), Ok(()));
        let others = [
            ExpectedFile { kind: FileKind::Hint, ..expected() },
            ExpectedFile { store: StoreId([0; 16]), ..expected() },
            ExpectedFile { partition: PartitionId(4), ..expected() },
            ExpectedFile { file: FileId(18), ..expected() },
            ExpectedFile { hash_key: [0; 16], ..expected() },
        ];
        for other in others {
            let error = header().check_expected(&other).unwrap_err();
            assert!(matches!(error, FormatError::Foreign(_)), "{error}");
        }
    }
}
