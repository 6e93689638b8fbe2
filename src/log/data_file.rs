//! Data files as the partition sees them: open for readers, and the one that is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::clock::Clock;
use crate::io::File;
use crate::keydir::FileSlot;
use crate::limits;
use crate::log::codec::Codecs;
use crate::log::format::FormatError;
use crate::log::format::data_header::{
    DATA_HEADER_LEN, DataHeader, ExpectedFile, FileIdentity, FileKind, Place,
};
use crate::log::format::group::{Chain, GROUP_HEADER_LEN};
use crate::log::format::record::{RecordHeader, decode_record};
use crate::log::hint_file::{Hint, Runs};
use crate::log::key_run::KeyRun;
use crate::log::manifest::{Manifest, WiderMap};
use crate::log::scanner::ReadAt;
use crate::log::stored_file::StoredFile;
use crate::planted::{Bug, is_planted};
use crate::route::PartitionMap;
use crate::types::{FileId, KeyId, KeyspaceId, PartitionId, Seqno, StoreId};

/// What the files of a store have in common (F2).
#[derive(Clone)]
pub(crate) struct StoreIdentity {
    pub(crate) store: StoreId,
    pub(crate) map_epoch: u64,
    pub(crate) partition_count: u32,
    pub(crate) hash_key: [u8; 16],
    /// Maps that were in force once, and had more partitions than any since.
    pub(crate) wider_maps: Vec<WiderMap>,
    /// A change of the partition count was begun and not cleared away.
    pub(crate) is_repartitioning: bool,
}

impl StoreIdentity {
    pub(crate) fn of(manifest: &Manifest) -> StoreIdentity {
        StoreIdentity {
            store: manifest.store,
            map_epoch: manifest.map_epoch,
            partition_count: manifest.partition_count,
            hash_key: manifest.hash_key,
            wider_maps: manifest.wider_maps.clone(),
            is_repartitioning: manifest.is_repartitioning,
        }
    }

    /// The map by which a record counts that is in a file of this map epoch (RT3).
    pub(crate) fn map_of(&self, epoch: u64) -> PartitionMap {
        let since = self.wider_maps.iter().find(|map| map.through >= epoch);
        let since = since.filter(|_| !is_planted(Bug::LeftBehindCounts));
        PartitionMap::new(since.map_or(self.partition_count, |map| map.partition_count))
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
    pub(crate) codecs: Arc<Codecs>,
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
            key: self.codecs.key_id(),
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

const ALL_DURABLE: u64 = u64::MAX;

/// One data file, shared by the worker and by readers on any thread, and what is known of its keys.
pub(crate) struct DataFile {
    pub(crate) id: FileId,
    pub(crate) identity: FileIdentity,
    /// The key that its records are encrypted with.
    pub(crate) key: KeyId,
    pub(crate) stored: Arc<StoredFile>,
    /// Where its records end that may be published: the log's end, or the closing mark.
    records_end: AtomicU64,
    /// Where what is durable of them ends, if that is not all of it.
    durable_end: AtomicU64,
    /// Compaction made it, so it is no part of the log.
    is_copy: AtomicBool,
    /// When it was begun, by the wall clock; zero if nobody needs to know.
    created_at_ms: AtomicU64,
    /// Its keys in order, once there is a hint that was not found wrong.
    hint: ArcSwapOption<Hint>,
    /// Its keys in order as far as a scan has needed them for want of a hint.
    pub(crate) runs: Runs,
}

impl std::ops::Deref for DataFile {
    type Target = StoredFile;

    fn deref(&self) -> &StoredFile {
        &self.stored
    }
}

impl DataFile {
    /// A file whose records end at `records_end`.
    pub(crate) fn new(
        id: FileId,
        identity: FileIdentity,
        key: KeyId,
        path: PathBuf,
        file: Arc<File>,
        records_end: u64,
    ) -> Arc<DataFile> {
        Arc::new(DataFile {
            id,
            identity,
            key,
            stored: StoredFile::new(path, Some(file)),
            records_end: AtomicU64::new(records_end),
            durable_end: AtomicU64::new(ALL_DURABLE),
            is_copy: AtomicBool::new(false),
            created_at_ms: AtomicU64::new(0),
            hint: ArcSwapOption::empty(),
            runs: Runs::default(),
        })
    }

    /// A place in this file.
    pub(crate) fn place(&self, offset: u64) -> Place {
        self.identity.at(offset)
    }

    /// Where its records end: whatever was acknowledged before this was asked lies below.
    pub(crate) fn records_end(&self) -> u64 {
        self.records_end.load(Ordering::Acquire)
    }

    /// The log has grown; called before the keydir points into what is new.
    pub(crate) fn set_records_end(&self, end: u64) {
        self.records_end.store(end, Ordering::Release);
    }

    /// How far the log goes in this file that a power cut cannot take back, and whether that is all that there
    /// will ever be of it.
    pub(crate) fn durable(&self) -> (u64, bool) {
        match self.durable_end.load(Ordering::SeqCst) {
            ALL_DURABLE => (self.records_end(), true),
            end => (end, false),
        }
    }

    /// `None` once the file is sealed.
    pub(crate) fn set_durable_end(&self, end: Option<u64>) {
        // In one order with the look at who follows the log (CF3).
        self.durable_end.store(end.unwrap_or(ALL_DURABLE), Ordering::SeqCst);
    }

    pub(crate) fn note_copy(&self) {
        self.is_copy.store(true, Ordering::Relaxed);
    }

    /// Whether its records are copies of what the log had before.
    pub(crate) fn is_copy(&self) -> bool {
        self.is_copy.load(Ordering::Relaxed)
    }

    pub(crate) fn note_created(&self, at_ms: u64) {
        self.created_at_ms.store(at_ms, Ordering::Relaxed);
    }

    /// In milliseconds since 1970.
    pub(crate) fn created_at_ms(&self) -> u64 {
        self.created_at_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn hint(&self) -> Option<Arc<Hint>> {
        self.hint.load_full()
    }

    /// There is a hint now; what scans had put together instead is let go.
    pub(crate) fn set_hint(&self, hint: Hint) {
        self.hint.store(Some(Arc::new(hint)));
        self.runs.clear();
    }

    /// The hint was found wrong; true for the first who says so of this one.
    pub(crate) fn drop_hint(&self, hint: &Arc<Hint>) -> bool {
        let before = self.hint.compare_and_swap(hint, None);
        before.as_ref().is_some_and(|before| Arc::ptr_eq(before, hint))
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
    /// Only in what readers are shown.
    sources: Arc<ScanSources>,
}

/// What a scan walks over to pass every key: each data file is in one of both.
#[derive(Default)]
pub(crate) struct ScanSources {
    pub(crate) runs: Vec<CoveringRun>,
    /// Those that no run covers.
    pub(crate) files: Vec<Arc<DataFile>>,
}

/// A key run, and the data files that it stands for.
#[derive(Clone)]
pub(crate) struct CoveringRun {
    pub(crate) run: Arc<KeyRun>,
    pub(crate) files: Arc<[Arc<DataFile>]>,
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

    /// How many files have another key than this one, or none.
    pub(crate) fn not_under(&self, key: KeyId) -> u64 {
        self.iter().filter(|(_, data)| data.key != key).count() as u64
    }

    /// The same for readers, to whom these key runs stand for the files that they cover.
    pub(crate) fn shown(&self, runs: &[Arc<KeyRun>]) -> FileTable {
        let mut files: Vec<_> = self.iter().map(|(_, data)| data.clone()).collect();
        let runs = runs.iter().filter_map(|run| {
            let covered: Arc<[_]> = files.extract_if(.., |data| run.covers(data.id)).collect();
            (!covered.is_empty()).then(|| CoveringRun { run: run.clone(), files: covered })
        });
        let runs = runs.collect();
        let sources = Arc::new(ScanSources { runs, files });
        FileTable { slots: self.slots.clone(), sources }
    }

    /// What scans walk over.
    pub(crate) fn sources(&self) -> &ScanSources {
        &self.sources
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
        data.set_durable_end(Some(DATA_HEADER_LEN as u64));
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

/// Checks both checksums and the whole key (G1); the value is as it is stored.
pub(crate) fn check_record(
    codecs: &Codecs,
    bytes: &[u8],
    place: Place,
    keyspace: KeyspaceId,
    key: &[u8],
) -> Checked {
    let record = match decode_record(bytes, place) {
        Ok(record) => record,
        Err(why) => return Checked::Damaged(why),
    };
    match codecs.key(&record.header, record.key, record.value) {
        Err(why) => Checked::Damaged(why),
        Ok(found) if *found != *key || record.header.keyspace != keyspace => Checked::OtherKey,
        Ok(_) => {
            let start = record.header.header_len() + record.key.len();
            Checked::Match { header: record.header, value: start..start + record.value.len() }
        }
    }
}
