//! Stores on every kind of disk, seeds, and an oracle that knows what a crash may leave.

mod wait;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};

use bytes::Bytes;
use ringcask::sim::SimDisk;
use ringcask::{Db, Io, Memory, Options, Result};

pub(crate) use wait::*;

/// Errno values, as Linux numbers them.
pub(crate) const EINTR: i32 = 4;
pub(crate) const EIO: i32 = 5;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EDQUOT: i32 = 122;

/// A place for a store, on one kind of disk; an open one is a [`Db`].
pub(crate) struct Store {
    disk: Disk,
    /// What it is encrypted with.
    key: Option<[u8; 32]>,
}

enum Disk {
    Uring(tempfile::TempDir),
    Blocking(tempfile::TempDir),
    Memory(Memory, PathBuf),
    Sim(SimDisk, PathBuf),
}

impl Store {
    pub(crate) fn uring() -> Store {
        let store = Store { disk: Disk::Uring(tempfile::tempdir().unwrap()), key: None };
        let probe = tempfile::tempdir().unwrap();
        let opened = wait(Options::new().partitions(1).io(Io::Uring).open(probe.path()));
        // Never skipped: a run that did not test the ring must not look like one that did.
        let db = opened.expect("these tests need io_uring; run them where it is allowed");
        wait(db.close()).unwrap();
        store
    }

    pub(crate) fn blocking() -> Store {
        Store { disk: Disk::Blocking(tempfile::tempdir().unwrap()), key: None }
    }

    /// In memory that outlives the store while this is there.
    pub(crate) fn memory() -> Store {
        Store { disk: Disk::Memory(Memory::new(), made_up_path()), key: None }
    }

    /// On a new simulated disk.
    pub(crate) fn sim(seed: u64) -> Store {
        Store { disk: Disk::Sim(SimDisk::new(seed), made_up_path()), key: None }
    }

    /// Another place on the same disk.
    pub(crate) fn beside(&self) -> Store {
        let disk = match &self.disk {
            Disk::Uring(_) => Disk::Uring(tempfile::tempdir().unwrap()),
            // What is in memory is backed up onto a disk.
            Disk::Blocking(_) | Disk::Memory(..) => Disk::Blocking(tempfile::tempdir().unwrap()),
            Disk::Sim(disk, _) => {
                let Disk::Sim(_, path) = Store::sim(0).disk else { unreachable!() };
                Disk::Sim(disk.clone(), path)
            }
        };
        Store { disk, key: self.key }
    }

    /// Encrypted, where the feature is there; every time that it is opened with its own options.
    pub(crate) fn encrypted(mut self, key: [u8; 32]) -> Store {
        self.key = Some(key);
        self
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        cfg!(feature = "encryption") && self.key.is_some()
    }

    /// The same store on what a crash of its simulated disk left.
    pub(crate) fn on(&self, after: SimDisk) -> Store {
        Store { disk: Disk::Sim(after, self.path().to_owned()), key: self.key }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.disk {
            Disk::Uring(_) => "uring",
            Disk::Blocking(_) => "blocking",
            Disk::Memory(..) => "memory",
            Disk::Sim(..) => "sim",
        }
    }

    pub(crate) fn is_sim(&self) -> bool {
        matches!(self.disk, Disk::Sim(..))
    }

    /// The simulated disk.
    pub(crate) fn disk(&self) -> &SimDisk {
        match &self.disk {
            Disk::Sim(disk, _) => disk,
            _ => panic!("{} is a real disk", self.name()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match &self.disk {
            Disk::Uring(dir) | Disk::Blocking(dir) => dir.path(),
            Disk::Memory(_, path) | Disk::Sim(_, path) => path,
        }
    }

    /// Two partitions on unpinned workers, and this disk. The count is not asked for, so that a
    /// store with another one can be opened too.
    pub(crate) fn options(&self) -> Options {
        let io = match &self.disk {
            Disk::Uring(_) => Io::Uring,
            Disk::Blocking(_) => Io::Blocking,
            Disk::Memory(memory, _) => Io::Memory(memory.clone()),
            Disk::Sim(disk, _) => Io::Sim(disk.clone()),
        };
        let options = Options::new().pin_workers(false).io(io);
        #[cfg(feature = "encryption")]
        if let Some(key) = self.key {
            return options.encryption_key(key);
        }
        options
    }

    pub(crate) fn try_open(&self, options: Options) -> Result<Db> {
        wait(options.open(self.path()))
    }

    pub(crate) fn open_with(&self, options: Options) -> Db {
        self.try_open(options).unwrap_or_else(|error| panic!("{}: {error}", self.name()))
    }

    pub(crate) fn open(&self) -> Db {
        self.open_with(self.options())
    }

    /// With one partition, for tests that look at its files.
    pub(crate) fn open_one(&self) -> Db {
        self.open_with(self.options().partitions(1))
    }

    /// Names in a directory of the store, sorted.
    pub(crate) fn list(&self, dir: &str) -> Vec<String> {
        let path = self.path().join(dir);
        match &self.disk {
            Disk::Sim(disk, _) => return disk.list(path),
            Disk::Memory(memory, _) => return memory.list(path),
            Disk::Uring(_) | Disk::Blocking(_) => {}
        }
        let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }

    /// Data files, as `partition-000/000000001.data`.
    pub(crate) fn data_files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for dir in self.list("") {
            for name in self.list(&dir) {
                if Path::new(&name).extension().is_some_and(|extension| extension == "data") {
                    files.push(format!("{dir}/{name}"));
                }
            }
        }
        files
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        let path = self.path().join(file);
        match &self.disk {
            Disk::Sim(disk, _) => disk.read_file(path).unwrap(),
            Disk::Memory(memory, _) => memory.read_file(path).unwrap(),
            Disk::Uring(_) | Disk::Blocking(_) => std::fs::read(path).unwrap(),
        }
    }

    pub(crate) fn write(&self, file: &str, bytes: &[u8]) {
        let path = self.path().join(file);
        match &self.disk {
            Disk::Sim(disk, _) => disk.write_file(path, bytes).unwrap(),
            Disk::Memory(..) => panic!("files in memory are the store's alone"),
            Disk::Uring(_) | Disk::Blocking(_) => std::fs::write(path, bytes).unwrap(),
        }
    }

    /// Makes every hint file useless, so that opening reads the data files themselves.
    pub(crate) fn spoil_hints(&self) {
        for file in self.image().into_keys() {
            if is_hint(&file) {
                self.write(&file, b"");
            }
        }
    }

    pub(crate) fn remove(&self, file: &str) {
        let path = self.path().join(file);
        match &self.disk {
            Disk::Sim(disk, _) => disk.remove(path).unwrap(),
            Disk::Memory(..) => panic!("files in memory are the store's alone"),
            Disk::Uring(_) | Disk::Blocking(_) => std::fs::remove_file(path).unwrap(),
        }
    }

    /// Every file of the store with its bytes, those aside that hold nothing.
    pub(crate) fn image(&self) -> BTreeMap<String, Vec<u8>> {
        let mut image = BTreeMap::new();
        for name in self.list("") {
            let inner = self.list(&name);
            if inner.is_empty() && name != "LOCK" && !name.starts_with("partition-") {
                image.insert(name.clone(), self.read(&name));
            }
            for inner in inner.into_iter().filter(|inner| inner != "RESERVE") {
                let file = format!("{name}/{inner}");
                image.insert(file.clone(), self.read(&file));
            }
        }
        image
    }

    /// Bytes in all files together, as a simulated disk counts its capacity.
    pub(crate) fn used_bytes(&self) -> u64 {
        let reserves = self.list("").into_iter().filter_map(|name| {
            let is_there = self.list(&name).contains(&"RESERVE".to_owned());
            is_there.then(|| self.read(&format!("{name}/RESERVE")))
        });
        reserves.chain(self.image().into_values()).map(|bytes| bytes.len() as u64).sum()
    }
}

/// Closing stores are remembered by path for the whole process, and tests run side by side.
fn made_up_path() -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("/store-{number}"))
}

pub(crate) fn is_hint(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "hint")
}

/// Runs a test on `io_uring`, on plain system calls, and on a simulated disk.
pub(crate) fn each_disk(test: impl Fn(&Store)) {
    for store in [Store::uring(), Store::blocking(), Store::sim(seed())] {
        println!("on {}", store.name());
        test(&store);
    }
}

/// `RINGCASK_SEED`, or another one at every run; printed, so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("RINGCASK_SEED") {
        Ok(seed) => seed.parse().expect("RINGCASK_SEED is a number"),
        Err(_) => fastrand::u64(..1 << 48),
    };
    println!("RINGCASK_SEED={seed}");
    seed
}

/// Whether `RINGCASK_LONG` asks for hours of a suite instead of a minute.
pub(crate) fn is_long() -> bool {
    std::env::var("RINGCASK_LONG").is_ok_and(|value| value == "1")
}

/// Says how much a suite has done, past the capture of test output: `scripts/counters.sh` collects
/// these lines, and `src/docs/durability.md` quotes them.
#[expect(clippy::explicit_write, reason = "`eprintln!` is captured")]
pub(crate) fn counted(what: &str, count: u64) {
    writeln!(std::io::stderr(), "counted: {what} = {count}").unwrap();
}

/// `len` bytes that look like nothing else.
pub(crate) fn bytes_of(random: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Everything in the store, by a scan.
pub(crate) fn contents(db: &Db) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut scan = db.scan();
    while let Some(entry) = wait(scan.next()) {
        let (key, value) = entry.unwrap();
        assert!(found.insert(key.to_vec(), value.to_vec()).is_none(), "a key is seen twice");
    }
    found
}

/// A waker that calls `f` on the thread that wakes: a worker's, in the middle of what it is doing.
pub(crate) fn on_wake(f: impl Fn() + Send + Sync + 'static) -> Waker {
    struct OnWake<F>(F);
    impl<F: Fn() + Send + Sync + 'static> Wake for OnWake<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }
    Waker::from(Arc::new(OnWake(f)))
}

/// Keys, bytes that live, shadow and are dead, files, and bytes in all.
pub(crate) fn accounts(db: &Db) -> [u64; 6] {
    let total = db.stats().total();
    let bytes = [total.live_bytes, total.shadow_bytes, total.dead_bytes];
    [total.keys, bytes[0], bytes[1], bytes[2], total.files, total.log_bytes]
}

pub(crate) fn get(db: &Db, key: impl AsRef<[u8]>) -> Option<Bytes> {
    wait(db.get(key)).unwrap()
}

/// What may be in a store after a crash: of each key the last state that was acknowledged as
/// durable, or any that was asked for later.
#[derive(Clone, Default)]
pub(crate) struct Oracle {
    keys: BTreeMap<Vec<u8>, History>,
}

#[derive(Clone, Default)]
struct History {
    /// `None` is "absent".
    durable: Option<Vec<u8>>,
    later: Vec<(Option<Vec<u8>>, bool)>,
}

impl Oracle {
    /// A write that is about to be sent.
    pub(crate) fn attempt(&mut self, key: &[u8], state: Option<&[u8]>) {
        let history = self.keys.entry(key.to_vec()).or_default();
        history.later.push((state.map(<[u8]>::to_vec), false));
    }

    /// The last attempt on `key` was acknowledged; nothing else was in flight on it.
    pub(crate) fn acknowledge(&mut self, key: &[u8], durable: bool) {
        let history = self.keys.get_mut(key).unwrap();
        let (state, acknowledged) = history.later.last_mut().unwrap();
        *acknowledged = true;
        if durable {
            history.durable = state.clone();
            history.later.clear();
        }
    }

    /// Whatever was acknowledged is durable now, as after `sync`, `close`, or for a killed process.
    pub(crate) fn all_durable(&mut self) {
        for history in self.keys.values_mut() {
            if let Some(last) = history.later.iter().rposition(|(_, acknowledged)| *acknowledged) {
                history.durable = history.later[last].0.clone();
                history.later.drain(..=last);
            }
        }
    }

    /// The power was cut: what was acknowledged and not durable may be gone for good.
    pub(crate) fn forget_acknowledgements(&mut self) {
        for (_, acknowledged) in self.keys.values_mut().flat_map(|history| &mut history.later) {
            *acknowledged = false;
        }
    }

    /// Recovery makes durable whatever it finds: from here on only that is allowed.
    pub(crate) fn settle(&mut self, db: &Db) {
        let mut found = contents(db);
        for (key, history) in &mut self.keys {
            *history = History { durable: found.remove(key), later: Vec::new() };
        }
    }

    /// Holds a store against it: nothing lost, nothing invented.
    pub(crate) fn check(&self, db: &Db, what: &str) {
        let found = contents(db);
        for key in found.keys() {
            assert!(self.keys.contains_key(key), "{what}: an invented key {key:?}");
        }
        for (key, history) in &self.keys {
            let state = found.get(key);
            assert_eq!(get(db, key).as_deref(), state.map(Vec::as_slice), "{what}: get and scan");
            let allowed = state == history.durable.as_ref()
                || history.later.iter().any(|(later, _)| later.as_ref() == state);
            assert!(
                allowed,
                "{what}: key {:?} holds {:?} bytes, durable {:?}, {} later attempts",
                String::from_utf8_lossy(key),
                state.map(Vec::len),
                history.durable.as_ref().map(Vec::len),
                history.later.len()
            );
        }
    }
}
