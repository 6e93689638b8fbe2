//! Opening an image, and holding what it holds against the invariants.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

use ringcask::sim::SimDisk;
use ringcask::{ChangeKind, ChangesSince, Db};

use crate::history::{AFTER, Bounds, Crash, Found, History};
use crate::run::{abandon, timed, timed_of_all};
use crate::script::Settings;
use crate::support::{Store, contents, counted, get, wait};

/// How much there was, over all threads.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) points: AtomicU64,
    pub(crate) made: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) killed: AtomicU64,
    pub(crate) double: AtomicU64,
    pub(crate) triple: AtomicU64,
}

impl Counters {
    pub(crate) fn tell(&self) {
        let count = |what, counter: &AtomicU64| counted(what, counter.load(Ordering::Relaxed));
        count("crash points", &self.points);
        count("crash images made", &self.made);
        count("crash images", &self.opened);
        count("kill images", &self.killed);
        count("double-crash images", &self.double);
        count("triple-crash images", &self.triple);
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// What an image may hold.
#[derive(Clone)]
pub(crate) enum Expected<'a> {
    /// A beginning of each partition's history.
    Beginning { history: &'a History, bounds: Bounds, crash: Crash },
    /// What it held when it was recovered before, and may not lose for the reason that is given.
    Same { found: &'a Found, why: &'static str },
}

/// What a crash left, to be opened.
pub(crate) struct Image<'a> {
    pub(crate) store: Store,
    pub(crate) expected: Expected<'a>,
    /// Values that [`AFTER`] may have, 0 for none.
    pub(crate) after: RangeInclusive<u8>,
    pub(crate) what: String,
}

/// An image that was opened, and before which operation what happened.
pub(crate) struct Recovered {
    pub(crate) found: Found,
    pub(crate) opened_at: u64,
    pub(crate) sent_at: u64,
    pub(crate) acknowledged_at: u64,
    /// What [`AFTER`] is now.
    pub(crate) after: u8,
}

/// What is done with a store once it was opened and written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Leave,
    Close,
    /// Compacted, and left.
    Compact,
}

impl Image<'_> {
    /// Another image that has to hold the same.
    pub(crate) fn again<'b>(
        &self,
        disk: SimDisk,
        found: &'b Found,
        after: RangeInclusive<u8>,
        why: &'static str,
    ) -> Image<'b> {
        let what = format!("{}, again", self.what);
        Image { store: self.store.on(disk), expected: Expected::Same { found, why }, after, what }
    }

    /// Opens the image, looks at it, and writes to it.
    pub(crate) fn recover(&self, settings: Settings, then: Then, counters: &Counters) -> Recovered {
        let _evidence =
            Evidence { store: self.store.on(self.store.disk().kill()), what: &self.what };
        add(&counters.opened, 1);
        let (store, what) = (&self.store, &self.what);
        let disk = store.disk();
        let (db, opened_at) = wait(timed_of_all(disk, settings.options(store).open(store.path())));
        let db = db.unwrap_or_else(|error| panic!("I5: {what}: {error}"));
        let found = Found::of(&db);
        self.check(&found);
        let sent_at = disk.ops();
        let after = self.after.end() + 1;
        let (put, acknowledged_at) = wait(timed(disk, db.put(AFTER, &[after][..])));
        put.unwrap_or_else(|error| panic!("I16: {what}: a write after recovery: {error}"));
        assert_eq!(get(&db, AFTER).as_deref(), Some(&[after][..]), "I16: {what}");
        // A walk and the log behind it: of some images, because of all it would take as long as the rest.
        if sent_at.is_multiple_of(32) {
            check_changes(&db, what);
        }
        if then == Then::Compact {
            wait(db.compact()).unwrap_or_else(|error| panic!("I4: {what}: compacting: {error}"));
            let compacted = Found::of(&db);
            assert_eq!(compacted, Found { after, ..found.clone() }, "I4: {what}: compacted");
        }
        if then == Then::Close {
            wait(db.close()).unwrap_or_else(|error| panic!("I16: {what}: closing: {error}"));
        } else {
            abandon(disk, &db);
        }
        Recovered { found, opened_at, sent_at, acknowledged_at, after }
    }

    fn check(&self, found: &Found) {
        let what = &self.what;
        assert!(
            self.after.contains(&found.after),
            "I16: {what}: a write after recovery: {} of {:?}",
            found.after,
            self.after
        );
        match &self.expected {
            Expected::Beginning { history, bounds, crash } => {
                history.check(found, bounds, *crash, what);
            }
            Expected::Same { found: before, why } => {
                assert_eq!(found.partitions, before.partitions, "{why}: {what}: another state");
            }
        }
    }
}

/// I17: a copy that is made of the changes from the beginning on is the store.
fn check_changes(db: &Db, what: &str) {
    let mut copy = BTreeMap::new();
    let mut changes = db.changes(ChangesSince::Beginning);
    while let Some(change) = wait(changes.next()) {
        let change = change.unwrap_or_else(|error| panic!("I17: {what}: {error}"));
        if change.keyspace_id > 0 {
            continue;
        }
        match change.kind {
            ChangeKind::Put { key, value, .. } => drop(copy.insert(key.to_vec(), value.to_vec())),
            ChangeKind::Del { key } => drop(copy.remove(&key[..])),
            ChangeKind::DelRange(range) => copy.retain(|key, _| !range.contains(key)),
            other => panic!("I17: {what}: {other:?}"),
        }
    }
    assert!(copy == contents(db), "I17: {what}: the changes come to something else");
}

/// Leaves the image where it can be looked at, if opening it panics.
struct Evidence<'a> {
    store: Store,
    what: &'a str,
}

impl Drop for Evidence<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir =
            dir.join(format!("crash-{}-{}", std::process::id(), self.store.disk().fingerprint()));
        for (file, bytes) in self.store.image() {
            let path = dir.join(file);
            let made = path.parent().map(std::fs::create_dir_all);
            let written = made.map(|_made| std::fs::write(&path, bytes));
            if !matches!(written, Some(Ok(()))) {
                println!("cannot write {}", path.display());
            }
        }
        println!("{}: the image is in {}", self.what, dir.display());
    }
}
