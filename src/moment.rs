//! One partition as it was at one moment, while it goes on (S1).
//!
//! A snapshot costs what changes while it lives. It holds on to the files that there were, so every record of its
//! moment stays readable; where the newest record of a key was, the keydir says, until that changes. Then the
//! worker notes what the keydir has said before, once for each key: that is the *overlay*.
//!
//! ## Invariants
//! - **SS1** A key's old place is in the overlay before the keydir says anything else of the key, and its file is
//!   held before the place is there. A reader asks the keydir first and the overlay afterwards. What the overlay
//!   says counts. If it says nothing, then the keydir had not changed when it was asked, because the locks of its table
//!   order that change, and the note before it, in front of the question.
//! - **SS2** Compaction that moves a record notes nothing: the copy is as good as the original. What is noted after
//!   that is the place of the copy.
//! - **SS3** A snapshot that has ended is marked before the first change that is not noted any more, and a reader
//!   looks at the mark after the overlay.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::{Mutex, RwLock};

use crate::clock::Clock;
use crate::keydir::{FileSlot, Location};
use crate::log::data_file::{DataFile, FileTable};
use crate::ranges::Ranges;
use crate::types::{FileId, KeyHash};

/// Parts of an overlay, by hash: the worker never waits for more than one of them to grow.
const STRIPES: usize = 256;

/// A record: where it is, whatever has become of its file's slot.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) data: Arc<DataFile>,
    /// Its slot says nothing.
    pub(crate) location: Location,
}

/// What the keydir said of a key at a moment.
pub(crate) enum Before {
    /// Nothing else than when it was asked.
    Same,
    /// That there is no such key.
    Absent,
    At(Place),
}

/// One partition at the moment of one snapshot.
pub(crate) struct Moment {
    pub(crate) life: Arc<Life>,
    /// What ranges hid then.
    pub(crate) ranges: Ranges,
    held: RwLock<Held>,
    stripes: Box<[RwLock<HashTable<Old>>]>,
}

/// Files that stay readable.
#[derive(Default)]
struct Held {
    table: Arc<FileTable>,
    /// Those of the table, in order of their ids.
    then: Vec<Arc<DataFile>>,
    /// Those that compaction has made since, as far as places are in them.
    since: HashMap<FileId, Arc<DataFile>>,
}

/// What the keydir said of a key before it changed.
struct Old {
    bucket: u64,
    /// Zero if there was no such key.
    file: FileId,
    table: u32,
    offset: u32,
    len: u32,
    has_expiry: bool,
}

impl Moment {
    /// With the files that readers see now, which are all that the keydir points into.
    pub(crate) fn new(life: Arc<Life>, ranges: Ranges, table: Arc<FileTable>) -> Moment {
        let mut then: Vec<Arc<DataFile>> = table.iter().map(|(_, data)| data.clone()).collect();
        then.sort_unstable_by_key(|data| data.id);
        let held = RwLock::new(Held { table, then, since: HashMap::new() });
        let stripes = (0..STRIPES).map(|_| RwLock::default()).collect();
        Moment { life, ranges, held, stripes }
    }

    /// The keydir, which says `old` of the key, is about to say something else. Returns the bytes by which the
    /// overlay has grown.
    pub(crate) fn note(&self, hash: KeyHash, old: Option<&Place>) -> usize {
        let mut stripe = self.stripe(hash).write();
        let before = stripe.allocation_size();
        let is_of = |old: &Old| old.bucket == hash.bucket && old.table == hash.table;
        if let Entry::Vacant(vacant) = stripe.entry(hash.bucket, is_of, |old| old.bucket) {
            let old = match old {
                None => Old::absent(hash),
                Some(place) => {
                    self.hold(&place.data);
                    Old::at(hash, place)
                }
            };
            vacant.insert(old);
        }
        stripe.allocation_size() - before
    }

    /// What the keydir said of the key at the moment, if it says something else now (SS1).
    pub(crate) fn before(&self, hash: KeyHash) -> Before {
        let stripe = self.stripe(hash).read();
        let is_of = |old: &Old| old.bucket == hash.bucket && old.table == hash.table;
        let Some(old) = stripe.find(hash.bucket, is_of) else { return Before::Same };
        if old.file == FileId::default() {
            return Before::Absent;
        }
        // Held as long as its place is here; if not, the snapshot has ended, which the reader is about to notice.
        let Some(data) = self.held.read().get(old.file).cloned() else { return Before::Same };
        let location = Location {
            slot: FileSlot(0),
            offset: old.offset,
            len: old.len,
            has_expiry: old.has_expiry,
        };
        Before::At(Place { data, location })
    }

    /// The files of the moment, and the key runs that stand for some of them: together they name every key that there
    /// was. Key runs that were made later leave out what was deleted since.
    pub(crate) fn table(&self) -> Arc<FileTable> {
        self.held.read().table.clone()
    }

    /// Lets go of everything; the snapshot has ended.
    pub(crate) fn clear(&self) {
        for stripe in &self.stripes {
            drop(std::mem::take(&mut *stripe.write()));
        }
        drop(std::mem::take(&mut *self.held.write()));
    }

    fn stripe(&self, hash: KeyHash) -> &RwLock<HashTable<Old>> {
        &self.stripes[(hash.table >> 24) as usize % STRIPES]
    }

    fn hold(&self, data: &Arc<DataFile>) {
        if self.held.read().get(data.id).is_none() {
            self.held.write().since.insert(data.id, data.clone());
        }
    }
}

impl Held {
    fn get(&self, file: FileId) -> Option<&Arc<DataFile>> {
        match self.then.binary_search_by_key(&file, |data| data.id) {
            Ok(index) => Some(&self.then[index]),
            Err(_) => self.since.get(&file),
        }
    }
}

impl Old {
    fn absent(hash: KeyHash) -> Old {
        let KeyHash { bucket, table, .. } = hash;
        Old { bucket, file: FileId::default(), table, offset: 0, len: 0, has_expiry: false }
    }

    fn at(hash: KeyHash, place: &Place) -> Old {
        let Location { offset, len, has_expiry, .. } = place.location;
        Old { file: place.data.id, offset, len, has_expiry, ..Old::absent(hash) }
    }
}

/// Why a snapshot cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum End {
    /// Nobody has it any more.
    Dropped = 1,
    /// It has reached the age that snapshots may have.
    TooOld,
    /// So much was changed that remembering what was there before takes more memory than it may.
    TooLarge,
    /// A partition is gone, as all are when the store closes.
    Gone,
}

/// Whether a snapshot can still be read; shared by its parts in all partitions.
pub(crate) struct Life {
    /// Zero while it lives, then an [`End`].
    end: AtomicU8,
    begun_ms: u64,
    /// Of its overlays.
    bytes: AtomicU64,
    all: Arc<Snapshots>,
}

impl Life {
    /// Why it ended, if it did (SS3).
    pub(crate) fn ended(&self) -> Option<End> {
        match self.end.load(Ordering::Acquire) {
            0 => None,
            1 => Some(End::Dropped),
            2 => Some(End::TooOld),
            3 => Some(End::TooLarge),
            _ => Some(End::Gone),
        }
    }

    /// Ends it, unless it has ended already; true for who did.
    pub(crate) fn end(&self, how: End) -> bool {
        let ended = self.end.compare_exchange(0, how as u8, Ordering::AcqRel, Ordering::Acquire);
        if ended.is_ok() {
            self.all.living.lock().retain(|life| !std::ptr::eq(Arc::as_ptr(life), self));
        }
        ended.is_ok()
    }

    /// Ends it if it is too old; true if that was now.
    pub(crate) fn grow_old(&self) -> bool {
        let Some(age_max_ms) = self.all.age_max_ms else { return false };
        let age_ms = self.all.clock.boot_ms().saturating_sub(self.begun_ms);
        age_ms >= age_max_ms && self.end(End::TooOld)
    }

    /// One of its overlays has grown; true if snapshots had to end for that.
    pub(crate) fn grown(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.all.bound()
    }
}

/// All snapshots of a store, and how much they may take.
pub(crate) struct Snapshots {
    bytes_max: u64,
    age_max_ms: Option<u64>,
    clock: Clock,
    /// The oldest one first.
    living: Mutex<VecDeque<Arc<Life>>>,
}

impl Snapshots {
    pub(crate) fn new(bytes_max: u64, age_max: Option<Duration>, clock: Clock) -> Snapshots {
        let as_ms = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let living = Mutex::default();
        Snapshots { bytes_max, age_max_ms: age_max.map(as_ms), clock, living }
    }

    /// One more.
    pub(crate) fn begin(self: &Arc<Self>) -> Arc<Life> {
        let (end, bytes) = (AtomicU8::new(0), AtomicU64::new(0));
        let life = Arc::new(Life { end, begun_ms: self.clock.boot_ms(), bytes, all: self.clone() });
        self.living.lock().push_back(life.clone());
        life
    }

    /// Their number, and bytes of memory for what changed since they were made.
    pub(crate) fn count(&self) -> (u64, u64) {
        let living = self.living.lock();
        let bytes = living.iter().map(|life| life.bytes.load(Ordering::Relaxed));
        (living.len() as u64, bytes.sum())
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub(crate) fn age_max(&self) -> Option<Duration> {
        self.age_max_ms.map(Duration::from_millis)
    }

    /// Ends the oldest ones until all together take no more than they may; true if any had to.
    fn bound(&self) -> bool {
        let mut has_ended = false;
        while self.count().1 > self.bytes_max {
            let Some(oldest) = self.living.lock().front().cloned() else { break };
            has_ended |= oldest.end(End::TooLarge);
        }
        has_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::data_header::FileIdentity;
    use crate::types::{KeyId, PartitionId, StoreId};

    fn file(id: u64) -> Arc<DataFile> {
        let (fs, dir) = (crate::io::Fs::os(), tempfile::tempdir().unwrap());
        let path = dir.path().join(id.to_string());
        let file = fs.create_new(&path).unwrap();
        let identity = FileIdentity::new(StoreId::default(), PartitionId(0), FileId(id));
        DataFile::new(FileId(id), identity, KeyId::NONE, path, file, 0)
    }

    fn place(data: &Arc<DataFile>, offset: u32) -> Place {
        let location = Location { slot: FileSlot(9), offset, len: 64, has_expiry: true };
        Place { data: data.clone(), location }
    }

    fn table(files: &[&Arc<DataFile>]) -> Arc<FileTable> {
        let mut table = FileTable::default();
        for data in files {
            assert!(table.insert(Arc::clone(data)).is_some());
        }
        Arc::new(table)
    }

    fn hash(n: u32) -> KeyHash {
        KeyHash { bucket: u64::from(n % 7), table: n.wrapping_mul(0x9E37_79B9), route: 0 }
    }

    fn all(bytes_max: u64) -> Arc<Snapshots> {
        Arc::new(Snapshots::new(bytes_max, None, Clock::Real))
    }

    /// File and offset; zeros for a key that was absent.
    fn found(moment: &Moment, hash: KeyHash) -> Option<(u64, u32)> {
        match moment.before(hash) {
            Before::Same => None,
            Before::Absent => Some((0, 0)),
            Before::At(place) => Some((place.data.id.0, place.location.offset)),
        }
    }

    /// SS1: breaks if a later change of a key takes the place of the first one.
    #[test]
    fn what_was_there_first_stays() {
        let (then, since) = (file(3), file(8));
        let life = all(u64::MAX).begin();
        let moment = Moment::new(life.clone(), Ranges::default(), table(&[&then]));
        for n in 0..2000 {
            assert_eq!(found(&moment, hash(n)), None);
            let old = (n % 3 > 0).then(|| place(if n % 3 == 1 { &then } else { &since }, n * 8));
            moment.note(hash(n), old.as_ref());
            moment.note(hash(n), Some(&place(&since, 0)));
            moment.note(hash(n), None);
        }
        for n in 0..2000 {
            let expected = match n % 3 {
                0 => (0, 0),
                1 => (3, n * 8),
                _ => (8, n * 8),
            };
            assert_eq!(found(&moment, hash(n)), Some(expected), "{n}");
        }
        assert!(Arc::strong_count(&then) > 1 && Arc::strong_count(&since) == 2);
        assert_eq!(moment.table().iter().count(), 1);
        moment.clear();
        assert_eq!((Arc::strong_count(&then), Arc::strong_count(&since)), (1, 1));
        assert_eq!(found(&moment, hash(1)), None);
        // Until then those that live hold it, and it holds them.
        assert!(life.end(End::Dropped));
    }

    /// Breaks if memory is not counted, or the wrong snapshot has to go for it.
    #[test]
    fn the_oldest_goes_when_memory_is_short() {
        let all = all(100_000);
        let moments: Vec<Moment> =
            (0..3).map(|_| Moment::new(all.begin(), Ranges::default(), table(&[]))).collect();
        let mut ended = 0;
        for n in 0.. {
            for moment in moments.iter().filter(|moment| moment.life.ended().is_none()) {
                let grown = moment.note(hash(n), None);
                let has_ended = grown > 0 && moment.life.grown(grown);
                ended += u32::from(has_ended);
            }
            let living = moments.iter().filter(|moment| moment.life.ended().is_none()).count();
            assert!(moments[3 - living..].iter().all(|moment| moment.life.ended().is_none()));
            assert!(all.count().1 <= 100_000);
            if living == 0 {
                break;
            }
        }
        assert_eq!((ended, all.count()), (3, (0, 0)));
        assert_eq!(moments[0].life.ended(), Some(End::TooLarge));
        assert!(!moments[0].life.end(End::Dropped));
        assert_eq!(moments[0].life.ended(), Some(End::TooLarge));
    }

    #[test]
    fn one_that_is_too_old_ends_once() {
        let clock = crate::clock::SimClock::new(1_000);
        let all = Snapshots::new(1, Some(Duration::from_secs(5)), Clock::Sim(clock.clone()));
        let life = Arc::new(all).begin();
        clock.advance(Duration::from_millis(4999));
        assert!(!life.grow_old() && life.ended().is_none());
        clock.set(0);
        clock.advance(Duration::from_millis(1));
        assert!(life.grow_old() && !life.grow_old());
        assert_eq!(life.ended(), Some(End::TooOld));
    }
}
