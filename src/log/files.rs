//! `FILES`: the data files of a partition, as the last commit of a rotation or compaction left
//! them.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic, `RCFILES` and a zero |
//! | 8 | 2 | format version, 1 |
//! | 10 | 2 | number of partitions under that map epoch, 0 if it is not said |
//! | 12 | 4 | partition |
//! | 16 | 16 | store id |
//! | 32 | 8 | map epoch |
//! | 40 | 8 | id of the active file, 0 for none |
//! | 48 | 8 | next file id |
//! | 56 | 4 | number of sealed files |
//! | 60 | 4 | id of the newest file of the log that is gone, 0 if none is; all ones if it does not fit |
//! | 64 | 8 | sequence number that no record was given before it was written here |
//! | 72 | 48 each | sealed files, by id |
//! | behind them | 16 each | maps with more partitions than any since, as in MANIFEST: last epoch (8), partitions (4), zero (4) |
//! | at the end | 4 | number of those maps |
//! | | 4 | CRC-32C of everything before it |
//!
//! | offset in a sealed file's entry | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | file id |
//! | 8 | 8 | length in bytes |
//! | 16 | 8 | number of records |
//! | 24 | 8 | smallest sequence number |
//! | 32 | 8 | largest sequence number |
//! | 40 | 4 | digest: header CRC of the closing mark |
//! | 44 | 4 | flags: 1 if compaction made the file, so that it is no part of the log |
//!
//! Bytes only: replacing the file (temporary, sync, rename, directory sync) is the partition's
//! work.
//!
//! ## Invariants
//! - **FL1** Sealed ids increase strictly, none is 0 or the active one, and all of them and the
//!   active one are below `next`: an id is never given twice.
//! - **FL2** A file without records has no sequence range; any other has one that is not empty.
//! - **FL3** The maps are as M3 has them, of before this map epoch. Going down writes the list of every partition that
//!   stays, and only going down adds to them, so with MANIFEST lost the lists still say which there were.

use std::collections::BTreeSet;

use super::format::{
    FORMAT_VERSION, FormatError, array_at, check_crc, put, u16_at, u32_at, u64_at,
};
use super::manifest::{WiderMap, are_in_order};
use crate::limits;
use crate::types::{FileId, PartitionId, Seqno, StoreId};

const MAGIC: [u8; 8] = *b"RCFILES\0";

const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 8;
const AT_PARTITION_COUNT: usize = 10;
const AT_PARTITION: usize = 12;
const AT_STORE: usize = 16;
const AT_MAP_EPOCH: usize = 32;
const AT_ACTIVE: usize = 40;
const AT_NEXT: usize = 48;
const AT_SEALED_COUNT: usize = 56;
const AT_LOG_GONE: usize = 60;
const AT_SEQNO_FLOOR: usize = 64;
const HEADER_LEN: usize = 72;

const AT_ENTRY_ID: usize = 0;
const AT_ENTRY_LEN: usize = 8;
const AT_ENTRY_RECORDS: usize = 16;
const AT_ENTRY_SEQNO_MIN: usize = 24;
const AT_ENTRY_SEQNO_MAX: usize = 32;
const AT_ENTRY_DIGEST: usize = 40;
const AT_ENTRY_FLAGS: usize = 44;
const ENTRY_LEN: usize = 48;

const AT_MAP_THROUGH: usize = 0;
const AT_MAP_COUNT: usize = 8;
const AT_MAP_RESERVED: usize = 12;
const MAP_LEN: usize = 16;

const TRAILER_LEN: usize = 8;
const CRC_LEN: usize = size_of::<u32>();

const _: () = assert!(AT_SEQNO_FLOOR + size_of::<u64>() == HEADER_LEN);
const FLAG_COPY: u32 = 1;

const _: () = assert!(AT_ENTRY_FLAGS + size_of::<u32>() == ENTRY_LEN);
const _: () = assert!(
    (HEADER_LEN
        + ENTRY_LEN * limits::FILES_PER_PARTITION_MAX
        + MAP_LEN * limits::PARTITIONS_MAX as usize
        + TRAILER_LEN) as u64
        <= limits::FILES_LEN_MAX
);
const _: () = assert!(limits::PARTITIONS_MAX <= u16::MAX as u32);

/// A data file that is complete and never changes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedFile {
    pub(crate) id: FileId,
    /// Length in bytes, closing mark included.
    pub(crate) len: u64,
    /// Header checksum of the closing mark, which chains over the whole file.
    pub(crate) digest: u32,
    pub(crate) records: u64,
    /// Zero if there is no record.
    pub(crate) seqno_min: Seqno,
    /// Zero if there is no record.
    pub(crate) seqno_max: Seqno,
}

/// Which data files a partition has; a file that is not named here is never read (F1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilesList {
    pub(crate) store: StoreId,
    pub(crate) partition: PartitionId,
    /// Of the map under which the list was begun, or keys moved here last.
    pub(crate) map_epoch: u64,
    /// How many partitions that map has; lists of before this was written do not say it.
    pub(crate) partition_count: Option<u32>,
    /// Of before that map (FL3).
    pub(crate) wider_maps: Vec<WiderMap>,
    /// The file that is being written, whose end only a scan can tell. Its header is durable before
    /// it is named here.
    pub(crate) active: Option<FileId>,
    /// The id that the next file gets.
    pub(crate) next: FileId,
    /// The first sequence number of the open that replaced `FILES` last. It is durable before any
    /// record of that open is acknowledged, so the numbers of records that a power cut took are
    /// known to be spent (F5).
    pub(crate) seqno_floor: Seqno,
    /// The newest file of the log that is gone; zero if none is. Whoever follows the log has lost something if he
    /// had not come behind it.
    pub(crate) log_gone: FileId,
    /// Sealed files that compaction made: they have records of the log once more.
    pub(crate) copies: BTreeSet<FileId>,
    /// By id.
    pub(crate) sealed: Vec<SealedFile>,
}

impl FilesList {
    /// The sealed file with this id.
    pub(crate) fn find_sealed(&self, id: FileId) -> Option<&SealedFile> {
        let at = self.sealed.binary_search_by_key(&id, |sealed| sealed.id).ok()?;
        self.sealed.get(at)
    }

    /// Whether the file is one of the partition's, sealed or not.
    pub(crate) fn has(&self, id: FileId) -> bool {
        self.active == Some(id) || self.find_sealed(id).is_some()
    }

    /// The bytes of `FILES`.
    ///
    /// # Panics
    /// If the list breaks an invariant: written, it could never be opened again.
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert_eq!(self.check(), Ok(()), "FL1, FL2, FL3");
        let entries_end = HEADER_LEN + self.sealed.len() * ENTRY_LEN;
        let maps_end = entries_end + self.wider_maps.len() * MAP_LEN;
        let mut bytes = vec![0; maps_end + TRAILER_LEN];
        put(&mut bytes, AT_MAGIC, MAGIC);
        put(&mut bytes, AT_VERSION, FORMAT_VERSION.to_le_bytes());
        let partition_count = self.partition_count.unwrap_or(0) as u16;
        put(&mut bytes, AT_PARTITION_COUNT, partition_count.to_le_bytes());
        put(&mut bytes, AT_PARTITION, self.partition.0.to_le_bytes());
        put(&mut bytes, AT_STORE, self.store.0);
        put(&mut bytes, AT_MAP_EPOCH, self.map_epoch.to_le_bytes());
        put(&mut bytes, AT_ACTIVE, self.active.unwrap_or_default().0.to_le_bytes());
        put(&mut bytes, AT_NEXT, self.next.0.to_le_bytes());
        put(&mut bytes, AT_SEQNO_FLOOR, self.seqno_floor.0.to_le_bytes());
        put(&mut bytes, AT_SEALED_COUNT, (self.sealed.len() as u32).to_le_bytes());
        let log_gone = u32::try_from(self.log_gone.0).unwrap_or(u32::MAX);
        put(&mut bytes, AT_LOG_GONE, log_gone.to_le_bytes());
        let entries = bytes[HEADER_LEN..entries_end].chunks_exact_mut(ENTRY_LEN);
        for (entry, sealed) in entries.zip(&self.sealed) {
            sealed.encode(entry);
            if self.copies.contains(&sealed.id) {
                put(entry, AT_ENTRY_FLAGS, FLAG_COPY.to_le_bytes());
            }
        }
        let maps = bytes[entries_end..maps_end].chunks_exact_mut(MAP_LEN);
        for (bytes, map) in maps.zip(&self.wider_maps) {
            put(bytes, AT_MAP_THROUGH, map.through.to_le_bytes());
            put(bytes, AT_MAP_COUNT, map.partition_count.to_le_bytes());
        }
        put(&mut bytes, maps_end, (self.wider_maps.len() as u32).to_le_bytes());
        let at_crc = bytes.len() - CRC_LEN;
        let crc = crc32c::crc32c(&bytes[..at_crc]);
        put(&mut bytes, at_crc, crc.to_le_bytes());
        bytes
    }

    /// The list that `bytes`, a whole `FILES`, says.
    pub(crate) fn decode(bytes: &[u8]) -> Result<FilesList, FormatError> {
        let magic: [u8; 8] = array_at(bytes, AT_MAGIC)?;
        if magic != MAGIC {
            return Err(FormatError::Magic { what: "the list of files" });
        }
        let version = u16_at(bytes, AT_VERSION)?;
        if version > FORMAT_VERSION {
            return Err(FormatError::NewerVersion(u32::from(version)));
        }
        let Some((covered, crc)) = bytes.split_last_chunk::<CRC_LEN>() else {
            return Err(FormatError::Incomplete { need: HEADER_LEN + TRAILER_LEN });
        };
        check_crc("list of files", u32::from_le_bytes(*crc), crc32c::crc32c(covered))?;
        if version != FORMAT_VERSION {
            return Err(FormatError::invalid("the format version is zero"));
        }
        let (entries, maps) = entries_of(bytes)?;
        let active = FileId(u64_at(bytes, AT_ACTIVE)?);
        let log_gone = match u32_at(bytes, AT_LOG_GONE)? {
            u32::MAX => u64::MAX,
            id => u64::from(id),
        };
        let list = FilesList {
            store: StoreId(array_at(bytes, AT_STORE)?),
            partition: PartitionId(u32_at(bytes, AT_PARTITION)?),
            map_epoch: u64_at(bytes, AT_MAP_EPOCH)?,
            partition_count: match u16_at(bytes, AT_PARTITION_COUNT)? {
                0 => None,
                count => Some(u32::from(count)),
            },
            wider_maps: maps.chunks_exact(MAP_LEN).map(map_of).collect::<Result<_, _>>()?,
            active: (active != FileId::default()).then_some(active),
            next: FileId(u64_at(bytes, AT_NEXT)?),
            seqno_floor: Seqno(u64_at(bytes, AT_SEQNO_FLOOR)?),
            log_gone: FileId(log_gone),
            copies: entries
                .chunks_exact(ENTRY_LEN)
                .filter_map(|entry| copy_of(entry).transpose())
                .collect::<Result<_, _>>()?,
            sealed: entries
                .chunks_exact(ENTRY_LEN)
                .map(SealedFile::decode)
                .collect::<Result<_, _>>()?,
        };
        list.check()?;
        Ok(list)
    }

    /// Makes the checksum of made-up bytes good.
    #[cfg(feature = "sim")]
    pub(in crate::log) fn forge(bytes: &mut [u8]) {
        let Some((covered, crc)) = bytes.split_last_chunk_mut::<CRC_LEN>() else { return };
        *crc = crc32c::crc32c(covered).to_le_bytes();
    }

    /// Checked before the list is written and after it is read (FL1, FL2, FL3).
    fn check(&self) -> Result<(), FormatError> {
        if self.sealed.len() > limits::FILES_PER_PARTITION_MAX {
            return Err(FormatError::invalid(
                "the list names more files than a partition can have",
            ));
        }
        let mut newest = FileId::default();
        for sealed in &self.sealed {
            if sealed.id <= newest {
                return Err(FormatError::invalid("the ids of sealed files do not increase (FL1)"));
            }
            if Some(sealed.id) == self.active {
                return Err(FormatError::invalid("the active file is listed as sealed (FL1)"));
            }
            let range = (sealed.seqno_min, sealed.seqno_max);
            let is_range_sound = if sealed.records == 0 {
                range == (Seqno::default(), Seqno::default())
            } else {
                sealed.seqno_min <= sealed.seqno_max
            };
            if !is_range_sound {
                return Err(FormatError::invalid("a sealed file has no sound range (FL2)"));
            }
            newest = sealed.id;
        }
        if newest.max(self.active.unwrap_or_default()) >= self.next {
            return Err(FormatError::invalid("a file has an id that was not given out yet (FL1)"));
        }
        if self.active == Some(FileId::default()) {
            return Err(FormatError::invalid("the active file has no id (FL1)"));
        }
        let count = self.partition_count.unwrap_or(limits::PARTITIONS_MAX);
        if !(1..=limits::PARTITIONS_MAX).contains(&count)
            || !are_in_order(&self.wider_maps, self.map_epoch, count)
        {
            return Err(FormatError::invalid("the wider maps are not in order (FL3)"));
        }
        Ok(())
    }
}

/// The entries and the maps between header and trailer, which are exactly as long as their numbers say.
fn entries_of(bytes: &[u8]) -> Result<(&[u8], &[u8]), FormatError> {
    let count = u32_at(bytes, AT_SEALED_COUNT)? as usize;
    let between = bytes
        .len()
        .checked_sub(TRAILER_LEN)
        .and_then(|end| bytes.get(HEADER_LEN..end))
        .ok_or(FormatError::Incomplete { need: HEADER_LEN + TRAILER_LEN })?;
    let map_count = u32_at(bytes, bytes.len() - TRAILER_LEN)? as usize;
    let lens = count.checked_mul(ENTRY_LEN).zip(map_count.checked_mul(MAP_LEN));
    match lens.and_then(|(entries, maps)| Some((entries, entries.checked_add(maps)?))) {
        Some((entries, both)) if both == between.len() => Ok(between.split_at(entries)),
        _ => Err(FormatError::invalid("the list of files is not as long as its counts say")),
    }
}

fn map_of(bytes: &[u8]) -> Result<WiderMap, FormatError> {
    if u32_at(bytes, AT_MAP_RESERVED)? != 0 {
        return Err(FormatError::Unsupported("a reserved field of the list of files"));
    }
    Ok(WiderMap {
        through: u64_at(bytes, AT_MAP_THROUGH)?,
        partition_count: u32_at(bytes, AT_MAP_COUNT)?,
    })
}

/// The id of a file that compaction made.
fn copy_of(entry: &[u8]) -> Result<Option<FileId>, FormatError> {
    let id = FileId(u64_at(entry, AT_ENTRY_ID)?);
    Ok((u32_at(entry, AT_ENTRY_FLAGS)? & FLAG_COPY != 0).then_some(id))
}

impl SealedFile {
    fn encode(&self, entry: &mut [u8]) {
        put(entry, AT_ENTRY_ID, self.id.0.to_le_bytes());
        put(entry, AT_ENTRY_LEN, self.len.to_le_bytes());
        put(entry, AT_ENTRY_RECORDS, self.records.to_le_bytes());
        put(entry, AT_ENTRY_SEQNO_MIN, self.seqno_min.0.to_le_bytes());
        put(entry, AT_ENTRY_SEQNO_MAX, self.seqno_max.0.to_le_bytes());
        put(entry, AT_ENTRY_DIGEST, self.digest.to_le_bytes());
    }

    fn decode(entry: &[u8]) -> Result<SealedFile, FormatError> {
        if u32_at(entry, AT_ENTRY_FLAGS)? & !FLAG_COPY != 0 {
            return Err(FormatError::Unsupported("a flag of a sealed file"));
        }
        Ok(SealedFile {
            id: FileId(u64_at(entry, AT_ENTRY_ID)?),
            len: u64_at(entry, AT_ENTRY_LEN)?,
            digest: u32_at(entry, AT_ENTRY_DIGEST)?,
            records: u64_at(entry, AT_ENTRY_RECORDS)?,
            seqno_min: Seqno(u64_at(entry, AT_ENTRY_SEQNO_MIN)?),
            seqno_max: Seqno(u64_at(entry, AT_ENTRY_SEQNO_MAX)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::{each_flip, hex};
    use super::*;

    const GOLDEN: &str = "
        524346494c455300 0100000003000000
        1011121314151617 18191a1b1c1d1e1f
        0200000000000000 1200000000000000
        1400000000000000 0200000002000000
        0807060504030201
        0300000000000000 0010000000000000
        0a00000000000000 6400000000000000
        6d00000000000000 0df0feca00000000
        1100000000000000 b000000000000000
        0000000000000000 0000000000000000
        0000000000000000 efbeadde01000000
        00000000b4d62d23";

    fn list() -> FilesList {
        FilesList {
            store: StoreId(std::array::from_fn(|index| 0x10 + index as u8)),
            partition: PartitionId(3),
            map_epoch: 2,
            partition_count: None,
            wider_maps: Vec::new(),
            active: Some(FileId(18)),
            next: FileId(20),
            seqno_floor: Seqno(0x0102_0304_0506_0708),
            log_gone: FileId(2),
            copies: BTreeSet::from([FileId(17)]),
            sealed: vec![
                SealedFile {
                    id: FileId(3),
                    len: 4096,
                    digest: 0xcafe_f00d,
                    records: 10,
                    seqno_min: Seqno(100),
                    seqno_max: Seqno(109),
                },
                SealedFile {
                    id: FileId(17),
                    len: 176,
                    digest: 0xdead_beef,
                    records: 0,
                    seqno_min: Seqno(0),
                    seqno_max: Seqno(0),
                },
            ],
        }
    }

    /// What the golden list has more, if it says its maps.
    const GOLDEN_MAPS: &str = "
        0100000000000000 0700000000000000
        01000000651a2391";

    fn list_with_maps() -> FilesList {
        let wider_maps = vec![WiderMap { through: 1, partition_count: 7 }];
        FilesList { partition_count: Some(5), wider_maps, ..list() }
    }

    fn golden_with_maps() -> Vec<u8> {
        let mut bytes = hex(GOLDEN);
        bytes[AT_PARTITION_COUNT] = 5;
        bytes.truncate(bytes.len() - TRAILER_LEN);
        bytes.extend(hex(GOLDEN_MAPS));
        bytes
    }

    fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
        let at_crc = bytes.len() - CRC_LEN;
        let crc = crc32c::crc32c(&bytes[..at_crc]);
        put(&mut bytes, at_crc, crc.to_le_bytes());
        bytes
    }

    /// The golden list with some bytes changed and its checksum made good again.
    fn forged(offset: usize, field: &[u8]) -> Vec<u8> {
        let mut bytes = hex(GOLDEN);
        bytes[offset..offset + field.len()].copy_from_slice(field);
        with_crc(bytes)
    }

    #[test]
    fn golden_bytes_of_version_1() {
        assert_eq!(list().encode(), hex(GOLDEN));
        assert_eq!(FilesList::decode(&hex(GOLDEN)), Ok(list()));
        assert_eq!(list_with_maps().encode(), golden_with_maps());
        assert_eq!(FilesList::decode(&golden_with_maps()), Ok(list_with_maps()));
    }

    #[test]
    fn lists_without_files_and_without_an_active_one_come_back() {
        for list in [
            FilesList { active: None, ..list() },
            FilesList { sealed: Vec::new(), copies: BTreeSet::new(), ..list() },
            FilesList {
                active: None,
                next: FileId(1),
                log_gone: FileId(0),
                sealed: Vec::new(),
                copies: BTreeSet::new(),
                ..list()
            },
            FilesList { log_gone: FileId(u64::MAX), ..list() },
            // Outputs of compaction get their ids after the active file has its own.
            FilesList { active: Some(FileId(5)), ..list() },
        ] {
            assert_eq!(FilesList::decode(&list.encode()), Ok(list));
        }
    }

    #[test]
    fn every_flip_is_refused() {
        for golden in [hex(GOLDEN), golden_with_maps()] {
            each_flip(&golden, |index, bytes| {
                assert!(FilesList::decode(bytes).is_err(), "byte {index}");
            });
        }
    }

    #[test]
    fn every_other_length_is_refused() {
        let mut bytes = golden_with_maps();
        for len in 0..bytes.len() {
            assert!(FilesList::decode(&bytes[..len]).is_err(), "{len} bytes");
            let mut cut = bytes[..len.max(CRC_LEN)].to_vec();
            cut = with_crc(cut);
            assert!(FilesList::decode(&cut).is_err(), "{len} bytes under a good checksum");
        }
        bytes.push(0);
        assert!(FilesList::decode(&bytes).is_err(), "one byte too many");
        assert!(FilesList::decode(&with_crc(bytes)).is_err(), "under a good checksum");
    }

    #[test]
    fn a_newer_version_is_not_damage() {
        let mut bytes = hex(GOLDEN);
        bytes[AT_VERSION] = 2;
        assert_eq!(FilesList::decode(&bytes), Err(FormatError::NewerVersion(2)));
    }

    /// A count is used for nothing before the bytes are there that it counts.
    #[test]
    fn a_count_that_does_not_match_the_length_is_refused() {
        for count in [0_u32, 1, 3, 1 << 16, u32::MAX] {
            let error = FilesList::decode(&forged(AT_SEALED_COUNT, &count.to_le_bytes()));
            assert!(matches!(error, Err(FormatError::Invalid(_))), "{count}: {error:?}");
            let error = FilesList::decode(&forged(168, &count.to_le_bytes()));
            assert_eq!(error.is_ok(), count == 0, "{count} maps: {error:?}");
        }
    }

    /// A list that routes by maps which contradict each other would bring back what was left behind.
    #[test]
    fn fl3_maps_that_are_out_of_order_are_refused() {
        let at_map = HEADER_LEN + 2 * ENTRY_LEN;
        for (offset, byte) in [
            (AT_PARTITION_COUNT, 7),
            (AT_PARTITION_COUNT + 1, 0x10),
            (AT_MAP_EPOCH, 1),
            (at_map + AT_MAP_THROUGH, 0),
            (at_map + AT_MAP_THROUGH, 2),
            (at_map + AT_MAP_COUNT, 5),
            (at_map + AT_MAP_COUNT + 1, 0x10),
            (at_map + AT_MAP_RESERVED, 1),
        ] {
            let mut bytes = golden_with_maps();
            bytes[offset] = byte;
            assert!(FilesList::decode(&with_crc(bytes)).is_err(), "{offset} {byte}");
        }
    }

    #[test]
    fn fl1_fl2_lists_that_contradict_themselves_are_refused() {
        let first = HEADER_LEN;
        let second = HEADER_LEN + ENTRY_LEN;
        for (offset, byte) in [
            (AT_VERSION, 0),
            (AT_ACTIVE, 17),
            (AT_ACTIVE, 20),
            (AT_NEXT, 18),
            (AT_NEXT, 0),
            (first + AT_ENTRY_ID, 0),
            (first + AT_ENTRY_ID, 17),
            (second + AT_ENTRY_ID, 2),
            (second + AT_ENTRY_ID, 20),
            (first + AT_ENTRY_SEQNO_MAX, 99),
            (second + AT_ENTRY_SEQNO_MAX, 1),
        ] {
            let error = FilesList::decode(&forged(offset, &[byte]));
            assert!(matches!(error, Err(FormatError::Invalid(_))), "{offset} {byte}: {error:?}");
        }
        let error = FilesList::decode(&forged(first + AT_ENTRY_FLAGS, &[2]));
        assert!(matches!(error, Err(FormatError::Unsupported(_))), "{error:?}");
    }

    #[test]
    #[should_panic(expected = "FL1")]
    fn a_list_that_contradicts_itself_is_never_written() {
        FilesList { active: Some(FileId(17)), ..list() }.encode();
    }
}
