//! Data files as the partition sees them: open for readers, and the one that is written.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::File;
use crate::keydir::FileSlot;
use crate::log::format::FormatError;
use crate::log::format::data_header::{DATA_HEADER_LEN, FileIdentity};
use crate::log::format::group::{Chain, GROUP_HEADER_LEN};
use crate::log::format::record::decode_record;
use crate::log::scanner::ReadAt;
use crate::types::{FileId, KeyspaceId, Seqno};

/// One data file, open. Shared by the worker and by readers on any thread.
pub(crate) struct DataFile {
    pub(crate) id: FileId,
    pub(crate) identity: FileIdentity,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
}

impl DataFile {
    /// Its length in bytes now.
    pub(crate) fn len(&self) -> Result<u64> {
        self.file.len().map_err(|source| Error::io("read the length of", &self.path, source))
    }
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        File::read_at(self, buf, offset)
    }
}

/// The open data files of a partition by slot: what a keydir entry points into.
#[derive(Clone, Default)]
pub(crate) struct FileTable {
    slots: Vec<Option<Arc<DataFile>>>,
}

impl FileTable {
    pub(crate) fn get(&self, slot: FileSlot) -> Option<&Arc<DataFile>> {
        self.slots.get(usize::from(slot.0))?.as_ref()
    }

    /// Puts `file` where there is room; `None` when all slots are taken.
    pub(crate) fn insert(&mut self, file: Arc<DataFile>) -> Option<FileSlot> {
        let index = match self.slots.iter().position(Option::is_none) {
            Some(index) => index,
            None if self.slots.len() < crate::limits::FILES_PER_PARTITION_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.slots[index] = Some(file);
        Some(FileSlot(index as u16))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.iter().count() >= crate::limits::FILES_PER_PARTITION_MAX
    }

    /// Every file with its slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FileSlot, &Arc<DataFile>)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, file)| Some((FileSlot(index as u16), file.as_ref()?)))
    }
}

/// The file that is written, and where its log stands.
///
/// - **AF1** `durable <= end`; bytes below `durable` are on disk (W2).
/// - **AF2** Groups are contiguous: one begins where the one before it ends.
pub(crate) struct ActiveDataFile {
    pub(crate) data: Arc<DataFile>,
    pub(crate) slot: FileSlot,
    /// The same file through another descriptor, for writing zeros ahead. The kernel reports a failed
    /// write-back once to each; shared, a step of zeros could take the report that a commit needs.
    pub(crate) ahead: Option<Arc<File>>,
    /// Where the next group begins.
    pub(crate) end: u64,
    pub(crate) durable: u64,
    /// Up to here zeros were written and synced ahead of the log (W3).
    pub(crate) prewritten: u64,
    /// Where the next group attaches.
    pub(crate) chain: Chain,
    pub(crate) record_count: u64,
    pub(crate) seqno_min: Seqno,
    pub(crate) seqno_max: Seqno,
}

impl ActiveDataFile {
    /// A file that holds nothing but its header, which is durable, and zeros up to `prewritten`.
    pub(crate) fn begin(
        data: Arc<DataFile>,
        slot: FileSlot,
        ahead: Option<Arc<File>>,
        open_id: u64,
        header_crc: u32,
        prewritten: u64,
    ) -> ActiveDataFile {
        ActiveDataFile {
            data,
            slot,
            ahead,
            end: DATA_HEADER_LEN as u64,
            durable: DATA_HEADER_LEN as u64,
            prewritten,
            chain: Chain::start(open_id, header_crc),
            record_count: 0,
            seqno_min: Seqno(u64::MAX),
            seqno_max: Seqno(0),
        }
    }

    /// The closing mark, and with it the digest of the file.
    pub(crate) fn closing_mark(&self) -> ([u8; GROUP_HEADER_LEN], u32) {
        self.chain.closing_mark(self.durable).encode(self.data.identity)
    }
}

/// What the bytes at a keydir entry turned out to be.
pub(crate) enum Checked {
    /// The record of the key; its value is at this range of the bytes.
    Match {
        value: std::ops::Range<usize>,
    },
    /// A sound record of another key: 96 bits of hash collided, or the entry moved on.
    OtherKey,
    Damaged(FormatError),
}

/// Checks both checksums and the whole key (G1).
pub(crate) fn check_record(
    bytes: &[u8],
    identity: FileIdentity,
    keyspace: KeyspaceId,
    key: &[u8],
) -> Checked {
    match decode_record(bytes, identity) {
        Err(error) => Checked::Damaged(error),
        Ok(record) if record.key != key || record.header.keyspace != keyspace => Checked::OtherKey,
        Ok(record) => {
            let start = record.header.header_len() + record.key.len();
            Checked::Match { value: start..start + record.value.len() }
        }
    }
}
