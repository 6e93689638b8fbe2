//! Data files as the partition sees them: open for readers, and the one that is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::clock::Clock;
use crate::io::{File, Fs};
use crate::keydir::FileSlot;
use crate::limits;
use crate::log::format::FormatError;
use crate::log::format::data_header::{
    DATA_HEADER_LEN, DataHeader, ExpectedFile, FileIdentity, FileKind, Place,
};
use crate::log::format::group::{Chain, GROUP_HEADER_LEN};
use crate::log::format::record::{RecordHeader, decode_record};
use crate::log::manifest::Manifest;
use crate::log::scanner::ReadAt;
use crate::types::{FileId, KeyspaceId, PartitionId, Seqno, StoreId};

/// What the files of a store have in common (F2).
#[derive(Clone)]
pub(crate) struct StoreIdentity {
    pub(crate) store: StoreId,
    pub(crate) map_epoch: u64,
    pub(crate) partition_count: u32,
    pub(crate) hash_key: [u8; 16],
}

impl StoreIdentity {
    pub(crate) fn of(manifest: &Manifest) -> StoreIdentity {
        StoreIdentity {
            store: manifest.store,
            map_epoch: manifest.map_epoch,
            partition_count: manifest.partition_count,
            hash_key: manifest.hash_key,
        }
    }

    /// What the header of a file must say.
    pub(crate) fn expected(
        &self,
        kind: FileKind,
        partition: PartitionId,
        file: FileId,
    ) -> ExpectedFile {
        ExpectedFile { kind, store: self.store, partition, file, hash_key: self.hash_key }
    }
}

/// Whose files these are: what the header of each says.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) identity: StoreIdentity,
    pub(crate) partition: PartitionId,
    /// Random; marks what was written by this open (F4).
    pub(crate) open_id: u64,
    pub(crate) clock: Clock,
}

impl Owner {
    /// The seed of the checksums in a file (L3).
    pub(crate) fn identity_of(&self, file: FileId) -> FileIdentity {
        FileIdentity::new(self.identity.store, self.partition, file)
    }

    /// The header of a file that is written now.
    pub(crate) fn header(&self, kind: FileKind, file: FileId) -> DataHeader {
        DataHeader {
            kind,
            store: self.identity.store,
            partition: self.partition,
            partition_count: self.identity.partition_count,
            file,
            map_epoch: self.identity.map_epoch,
            hash_key: self.identity.hash_key,
            open_id: self.open_id,
            created_at_ms: self.clock.wall_ms(),
        }
    }

    /// What the header of a file must say.
    pub(crate) fn expected(&self, kind: FileKind, file: FileId) -> ExpectedFile {
        self.identity.expected(kind, self.partition, file)
    }
}

/// Bounds of a data file; one that would go over any of them is sealed before. A record that is longer
/// than them gets a file of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileBounds {
    pub(crate) len_max: u64,
    pub(crate) records_max: u64,
}

/// Data files of a small partition are not shorter than this, in bytes.
const FITTED_LEN_MIN: u64 = 16 << 20;
/// A partition's live data is spread over about this many files.
const FITTED_FILES: u64 = 16;

impl FileBounds {
    /// The bounds for a partition with so much live data. Compaction takes whole files, so it has a better
    /// choice, and needs less space at once, when there are several even of a small store.
    pub(crate) fn fit(&self, live_bytes: u64) -> FileBounds {
        let len = (live_bytes / FITTED_FILES).max(FITTED_LEN_MIN);
        FileBounds { len_max: len.min(self.len_max), ..*self }
    }

    /// Whether a file may have this length, this many records, and this many bytes of keys.
    pub(crate) fn admit(&self, len: u64, records: u64, key_bytes: u64) -> bool {
        len <= self.len_max
            && records <= self.records_max
            && key_bytes <= limits::DATA_FILE_KEY_BYTES_MAX
    }
}

/// Gives out the ids of new files of a partition, to its log and to compaction, each once (F1).
#[derive(Clone)]
pub(crate) struct FileIds(Arc<AtomicU64>);

impl FileIds {
    pub(crate) fn new(next: FileId) -> FileIds {
        FileIds(Arc::new(AtomicU64::new(next.0)))
    }

    pub(crate) fn take(&self) -> FileId {
        FileId(self.0.fetch_add(1, Ordering::Relaxed))
    }

    /// The id that the next taker gets.
    pub(crate) fn next(&self) -> FileId {
        FileId(self.0.load(Ordering::Relaxed))
    }
}

/// One data file, shared by the worker and by readers on any thread.
///
/// Its descriptor may be given up while it is not used (a process has only so many), and is opened again
/// by whoever may wait for that; the file, once gone from the directory, could not be.
pub(crate) struct DataFile {
    pub(crate) id: FileId,
    pub(crate) identity: FileIdentity,
    pub(crate) path: PathBuf,
    /// `None` while it is given up.
    handle: ArcSwapOption<File>,
    /// When it was last read, on a clock that moves when files are opened.
    used_at: AtomicU64,
}

impl DataFile {
    pub(crate) fn new(
        id: FileId,
        identity: FileIdentity,
        path: PathBuf,
        file: Arc<File>,
    ) -> Arc<DataFile> {
        let handle = ArcSwapOption::from(Some(file));
        Arc::new(DataFile { id, identity, path, handle, used_at: AtomicU64::new(0) })
    }

    /// A place in this file.
    pub(crate) fn place(&self, offset: u64) -> Place {
        self.identity.at(offset)
    }

    /// Calls `read` with the open file; `None` if its descriptor is given up.
    pub(crate) fn with_open<R>(&self, read: impl FnOnce(&File) -> R) -> Option<R> {
        self.handle.load().as_deref().map(read)
    }

    /// Fills `buf` from the page cache, without waiting for the disk; `None` if not all of it is there.
    pub(crate) fn fill_now(&self, buf: &mut [u8], offset: u64) -> Option<()> {
        let read = self.with_open(|file| file.read_now(buf, offset))?;
        (read.ok()? == buf.len()).then_some(())
    }

    pub(crate) fn opened(&self) -> Option<Arc<File>> {
        self.handle.load_full()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.handle.load().is_some()
    }

    /// The open file, or else one that is opened for the caller alone. Blocks.
    pub(crate) fn open(&self, fs: &Fs) -> std::io::Result<Arc<File>> {
        if let Some(file) = self.opened() {
            return Ok(file);
        }
        let file = fs.open_read(&self.path)?;
        file.advise_random();
        Ok(file)
    }

    /// From here on readers use `file`, which [`open`](Self::open) returned.
    pub(crate) fn keep_open(&self, file: Arc<File>) {
        self.handle.store(Some(file));
    }

    /// Gives up the descriptor; it is closed when whoever reads through it is done.
    pub(crate) fn give_up(&self) -> Option<Arc<File>> {
        self.handle.swap(None)
    }

    /// Notes a read at `now`; costs a load while the clock stands still.
    pub(crate) fn note_used(&self, now: u64) {
        if self.used_at.load(Ordering::Relaxed) != now {
            self.used_at.store(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn used_at(&self) -> u64 {
        self.used_at.load(Ordering::Relaxed)
    }
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        File::read_at(self, buf, offset)
    }
}

/// The data files of a partition by slot: what a keydir entry points into.
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
            None if self.slots.len() < limits::FILES_PER_PARTITION_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.slots[index] = Some(file);
        Some(FileSlot(index as u16))
    }

    /// Takes the file out of its slot, which may get another one then.
    pub(crate) fn remove(&mut self, slot: FileSlot) -> Option<Arc<DataFile>> {
        self.slots.get_mut(usize::from(slot.0))?.take()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.iter().count() >= limits::FILES_PER_PARTITION_MAX
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
    /// Stays open.
    pub(crate) file: Arc<File>,
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
        file: Arc<File>,
        slot: FileSlot,
        ahead: Option<Arc<File>>,
        open_id: u64,
        header_crc: u32,
        prewritten: u64,
    ) -> ActiveDataFile {
        ActiveDataFile {
            data,
            file,
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
        header: RecordHeader,
        value: std::ops::Range<usize>,
    },
    /// A sound record of another key: 96 bits of hash collided, or the entry moved on.
    OtherKey,
    Damaged(FormatError),
}

/// Checks both checksums and the whole key (G1).
pub(crate) fn check_record(
    bytes: &[u8],
    place: Place,
    keyspace: KeyspaceId,
    key: &[u8],
) -> Checked {
    match decode_record(bytes, place) {
        Err(error) => Checked::Damaged(error),
        Ok(record) if record.key != key || record.header.keyspace != keyspace => Checked::OtherKey,
        Ok(record) => {
            let start = record.header.header_len() + record.key.len();
            Checked::Match { header: record.header, value: start..start + record.value.len() }
        }
    }
}
