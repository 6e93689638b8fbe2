//! The stores that are damaged: small, with every kind of file and record, and with a past.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use futures::future::try_join_all;
use ringcask::sim::{Cut, SimDisk};
use ringcask::{Compaction, Db, Durability, Options, WriteBatch};

use crate::contents::handles;
use crate::expect::expect;
use crate::log::{DATA_FILE_LEN_MAX, KEY, List, Log, Record, full_key, split_key};
use crate::mutation::{Image, SECTOR_SIZE, Source};
use crate::support::{Store, accounts, contents, wait};
use crate::sweeps::PLAIN_LEN_MAX;

/// Records of an aligned value and their group together: half a sector, so that one sector of a file can
/// stand exactly where another was.
const ALIGNED_VALUE_LEN: usize = 170;

/// A store as it is damaged again and again, and all that is known about it.
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    pub(crate) store: Store,
    pub(crate) image: Image,
    /// The same store at earlier moments.
    pub(crate) ages: Vec<Image>,
    foreign: Image,
    twin: Image,
    is_variant: bool,
    pub(crate) partitions: Vec<String>,
    /// Every list of files that the store or its twin ever had, by path and bytes.
    pub(crate) lists: HashMap<(String, Vec<u8>), List>,
    /// What the data files of the store and of its twin say, that of the store first.
    pub(crate) logs: BTreeMap<String, Vec<Log>>,
    /// What the store says of itself when it is opened unchanged, without what that settles once more.
    pub(crate) accounts: [u64; 6],
    /// Every key that was ever written, and one that was not.
    pub(crate) keys: BTreeSet<Vec<u8>>,
}

/// How a store's second life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    /// Its last file has groups of which each vouches for those before, and zeros behind them.
    Killed,
    /// Nothing vouches for the last groups, and the file ends with them.
    KilledUnsynced,
}

/// What a layout is like.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// Most of its files are such as another layout has.
    pub(crate) is_variant: bool,
    pub(crate) partitions: u32,
    pub(crate) end: End,
    pub(crate) with_hints: bool,
    pub(crate) with_long_keys: bool,
    /// Long values are stored compressed.
    pub(crate) is_compressed: bool,
    pub(crate) is_encrypted: bool,
    /// How often the second life's writes are repeated.
    pub(crate) rounds: usize,
}

impl Layout {
    pub(crate) fn build(plan: &Plan) -> Layout {
        let (store, ages, twin) = grow(plan);
        let (foreign, ..) = grow(plan);
        let image = image_of(&store);
        let (foreign, twin) = (image_of(&foreign), image_of(&twin));
        let mut layout = Layout {
            name: plan.name,
            is_variant: plan.is_variant,
            partitions: (0..plan.partitions).map(|id| format!("partition-{id:03}")).collect(),
            // Everything is durable: what is damaged is damaged for good.
            store: store.on(store.disk().power_cut(Cut::KeepAll)),
            lists: HashMap::new(),
            logs: BTreeMap::new(),
            accounts: [0; 6],
            keys: BTreeSet::from([b"never there".to_vec()]),
            image,
            ages,
            foreign,
            twin,
        };
        layout.take_apart();
        layout.check();
        layout
    }

    /// Whether the file is what this layout is there for.
    pub(crate) fn is_own(&self, file: &str) -> bool {
        !self.is_variant
            || (self.partitions.len() > 1 && file.starts_with("partition-000"))
            || self.image.get(file).is_some_and(|bytes| bytes.len() > PLAIN_LEN_MAX)
            || self.logs.get(file).is_some_and(|logs| !logs[0].is_closed)
    }

    pub(crate) fn source(&self, source: Source) -> &Image {
        match source {
            Source::Age(age) => &self.ages[age],
            Source::Foreign => &self.foreign,
            Source::Twin => &self.twin,
        }
    }

    /// A copy of the store whose files are those of `image`.
    pub(crate) fn with(&self, image: &Image) -> Store {
        let disk: SimDisk = self.store.disk().kill();
        for (file, bytes) in image {
            if self.image.get(file).is_none_or(|original| original != bytes) {
                disk.write_file(self.store.path().join(file), bytes).unwrap();
            }
        }
        for file in self.image.keys().filter(|file| !image.contains_key(*file)) {
            disk.remove(self.store.path().join(file)).unwrap();
        }
        self.store.on(disk)
    }

    fn take_apart(&mut self) {
        for image in [&self.image, &self.twin].into_iter().chain(&self.ages) {
            for (file, bytes) in image {
                if is_list(file) {
                    let place = (file.clone(), bytes.to_vec());
                    self.lists.entry(place).or_insert_with(|| List::of(bytes));
                }
            }
        }
        // Of each history the newest image that has the file says all of it.
        let histories = [vec![&self.image], vec![&self.twin], self.ages.iter().rev().collect()];
        for image in histories.into_iter().flatten() {
            for (file, bytes) in image.iter().filter(|(file, _)| is_data(file)) {
                let logs = self.logs.entry(file.clone()).or_default();
                if logs.iter().all(|log| log.bytes != **bytes) {
                    let log = Log::of(bytes);
                    let records = log.records().filter(|record| !record.is_control());
                    self.keys.extend(records.map(|record| record.key.clone()));
                    logs.push(log);
                }
            }
        }
    }

    /// The parser says what the engine says, and there is of everything something.
    /// Whether the hint of a data file of this log is there, and is the one that belongs to it.
    pub(crate) fn has_hint(&self, image: &Image, file: &str, log: &Log) -> bool {
        let hint = file.replace(".data", ".hint");
        image.get(&hint).is_some_and(|bytes| self.image.get(&hint) == Some(bytes))
            && self.image.get(file).is_some_and(|original| **original == log.bytes)
    }

    fn check(&mut self) {
        let listed = self.image.keys().filter(|file| is_data(file));
        let logs: Vec<&Log> = listed.map(|file| &self.logs[file][0]).collect();
        let whole = expect(self, &self.image);
        let expected: BTreeMap<Vec<u8>, Vec<u8>> =
            whole.values.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        let deleted =
            self.keys.iter().filter(|key| !expected.contains_key(&key[..])).count() as u64;
        let again = whole.again.accounts();
        let copy = self.store.on(self.store.disk().kill());
        let db = copy.open_with(options(&copy));
        let found: BTreeMap<Vec<u8>, Vec<u8>> = handles(&db)
            .into_iter()
            .flat_map(|(in_space, db)| {
                let of = contents(&db).into_iter();
                of.map(move |(key, value)| (full_key(in_space, &key), value))
            })
            .collect();
        assert_eq!(found, expected, "{}: the parser", self.name);
        let accounts = accounts(&db);
        wait(db.close()).unwrap();
        let accounts = std::array::from_fn(|at| accounts[at] - again[at]);
        let records = logs.iter().flat_map(|log| log.records()).count() as u64;
        assert!(deleted > 1 && records > expected.len() as u64 + deleted, "{}", self.name);
        assert!(expected.values().any(Vec::is_empty) && expected.values().any(|v| v.len() > 4096));
        assert!(logs.iter().any(|log| log.groups.len() > 4), "several groups a file");
        assert!(logs.iter().flat_map(|log| log.records()).any(Record::is_range), "{}", self.name);
        let fills_sector =
            |record: &&Record| record.at.is_multiple_of(SECTOR_SIZE) && record.len == SECTOR_SIZE;
        let filled = logs.iter().flat_map(|log| log.records()).filter(fills_sector).count();
        assert!(filled > 1 || self.partitions.len() > 1, "records as long as a sector");
        assert!(logs.iter().flat_map(|log| &log.groups).any(|group| group.records.len() > 1));
        let has = |is: fn(&Record) -> bool| logs.iter().flat_map(|log| log.records()).any(is);
        let has_batches = has(Record::is_intent) && has(|r| r.is_decision) && has(|r| r.is_resolve);
        assert_eq!(has_batches, self.partitions.len() > 1, "{}: batches", self.name);
        let has_space = expected.keys().any(|key| split_key(key).0);
        assert_eq!(has_space, self.partitions.len() > 1, "{}: keyspaces", self.name);
        self.accounts = accounts;
    }
}

/// A store after two lives, its images on the way, and a twin that had another second life.
fn grow(plan: &Plan) -> (Store, Vec<Image>, Store) {
    let store = Store::sim(0);
    let store = if plan.is_encrypted { store.encrypted(KEY) } else { store };
    let ages = RefCell::new(Vec::new());
    let age = |store: &Store| ages.borrow_mut().push(image_of(&store.on(store.disk().kill())));
    let db = store.open_with(plan.options(&store));
    first_life(&db, plan, &mut || age(&store));
    wait(db.close()).unwrap();
    age(&store);
    let twin = store.on(store.disk().kill());
    let db = twin.open_with(plan.options(&twin));
    second_life(&db, plan, "of the twin", &mut || ());
    let twin = plan.end(&twin, &db);
    let db = store.open_with(plan.options(&store));
    second_life(&db, plan, "of the store", &mut || age(&store));
    let store = plan.end(&store, &db);
    (store, ages.into_inner(), twin)
}

/// With which every copy is opened: cheaply, and without surprises.
pub(crate) fn options(store: &Store) -> Options {
    store
        .options()
        .workers(1)
        .mailbox_requests_max(16)
        .data_file_len_max(DATA_FILE_LEN_MAX as u64)
        .compaction(Compaction::off())
}

impl Plan {
    fn options(&self, store: &Store) -> Options {
        let options = options(store).partitions(self.partitions);
        #[cfg(feature = "lz4")]
        let options = if self.is_compressed {
            options.compression(ringcask::Compression::Lz4).compression_len_min(1000)
        } else {
            options
        };
        options.prewrite(self.end != End::KilledUnsynced)
    }

    /// Closes the store, or kills it.
    fn end(&self, store: &Store, db: &Db) -> Store {
        let killed = store.on(store.disk().kill());
        wait(db.close()).unwrap();
        let ended = store.on(if self.end == End::Closed { store } else { &killed }.disk().kill());
        for file in ended.data_files() {
            let (dir, hint) = (file.split('/').next().unwrap(), file.replace(".data", ".hint"));
            let list = List::of(&ended.read(&format!("{dir}/FILES")));
            let is_sealed =
                list.sealed.iter().any(|sealed| file.contains(&format!("{:09}", sealed.id)));
            if !self.with_hints {
                if ended.image().contains_key(&hint) {
                    ended.remove(&hint);
                }
            } else if is_sealed && store.image().contains_key(&hint) {
                // Hints are written when there is time: how many a killed store has is chance. A file with a batch
                // that may not be settled has none.
                ended.write(&hint, &store.read(&hint));
            }
        }
        ended
    }
}

/// A batch over both partitions, of keys that are there and of others, in all ways that a batch can write.
fn batch(db: &Db, plan: &Plan, value: &str) {
    if plan.partitions > 1 {
        let mut batch = WriteBatch::new().del("group 1").del("batch gone");
        for partition in 0..2 {
            let keys = (0..).map(|n| format!("batch {n}"));
            for key in keys.filter(|key| db.partition_of(key) == partition).take(2) {
                batch = batch.put(key, value);
            }
        }
        wait(db.write(batch)).unwrap();
    }
}

fn first_life(db: &Db, plan: &Plan, age: &mut dyn FnMut()) {
    if plan.partitions > 1 {
        let space = wait(db.keyspace("space")).unwrap();
        for n in 0..3 {
            wait(space.put(format!("key {n:02}"), format!("in the keyspace, {n}"))).unwrap();
        }
        wait(space.put("batch gone", "soon")).unwrap();
    }
    wait(db.put("batch gone", "soon")).unwrap();
    for n in 0..6 {
        wait(db.put(format!("key {n:02}"), vec![b'1'; n * 17])).unwrap();
    }
    age();
    wait(db.put("page", vec![b'p'; 5000])).unwrap();
    wait(db.put("large", vec![b'l'; 3000])).unwrap();
    age();
    let group = (0..5).map(|n| db.put(format!("group {n}"), format!("first {n}")));
    wait(try_join_all(group)).unwrap();
    assert!(wait(db.del("key 01")).unwrap());
    if plan.with_long_keys {
        for (n, len) in [65_535, 300, 301].into_iter().enumerate() {
            wait(db.put(vec![b'x'; len], vec![b'v'; n * 9])).unwrap();
        }
    }
}

fn second_life(db: &Db, plan: &Plan, value: &str, age: &mut dyn FnMut()) {
    wait(db.compact()).unwrap();
    age();
    // At the beginning of a file, so that the two records of `sector` fill a sector each, and their groups'
    // headers stand before it.
    for (key, len, with) in
        [("filler", 250, b'-'), ("sector", 474, b'1'), ("filler", 378, b'-'), ("sector", 474, b'2')]
    {
        wait(db.put(key, vec![with; len])).unwrap();
    }
    for round in 0..plan.rounds {
        for n in 0..3 {
            wait(db.put(format!("key {n:02}"), format!("{value}, {round}"))).unwrap();
        }
        wait(db.put(format!("empty {round}"), "")).unwrap();
        // Of the same length, so that a twin's hint would fit but for what it says.
        let deleted = if value == "of the twin" { "key 03" } else { "key 02" };
        assert!(wait(db.del(deleted)).unwrap() || round > 0);
        age();
        let group = (0..5).map(|n| db.put(format!("group {n}"), format!("{value} {n}, {round}")));
        wait(try_join_all(group)).unwrap();
        for n in 0..8 {
            // Keys of six bytes, each overwritten where a sector begins as it did before.
            let aligned = vec![b'a' + (round * 8 + n) as u8 % 26; ALIGNED_VALUE_LEN];
            wait(db.put(format!("key a{}", n % 4), aligned)).unwrap();
        }
        age();
        wait(db.put("fills a file", vec![b'f'; 3900])).unwrap();
        wait(db.put("page", value.repeat(500))).unwrap();
        wait(db.del("large")).unwrap();
        // A range of keys that are there, of one that is put again, and of some that never were.
        let gone = (0..4).map(|n| db.put(format!("gone {n}"), format!("{value}, {round}")));
        wait(try_join_all(gone)).unwrap();
        wait(db.delete_prefix("gone")).unwrap();
        wait(db.put("gone 2", "again")).unwrap();
        wait(db.delete_range("gone 1".."gone 2")).unwrap();
        age();
        // In each partition more than half a file, so that its copies and its resolve are in another one than its
        // intents: whoever has lost only the hint of these settles it again.
        batch(db, plan, &format!("{value:-<990}"));
        if plan.partitions > 1 {
            let space = wait(db.keyspace("space")).unwrap();
            wait(space.delete_range("key 02"..)).unwrap();
            wait(space.put("key 01", value)).unwrap();
            age();
        }
    }
    // What a killed store's last file has.
    for n in 0..6 {
        let durability = if plan.end == End::KilledUnsynced && n > 2 {
            Durability::Buffered
        } else {
            Durability::Sync
        };
        let put = db.put(format!("last {}", n % 4), format!("{value}, number {n}"));
        wait(put.durability(durability)).unwrap();
    }
    assert!(wait(db.del("last 1")).unwrap());
    let group = (0..3).map(|n| db.put(format!("key {n:02}"), format!("{value}, at last")));
    wait(try_join_all(group)).unwrap();
    batch(db, plan, &format!("{value}, at last"));
    age();
}

pub(crate) fn is_list(file: &str) -> bool {
    file.ends_with("/FILES")
}

fn is_data(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "data")
}

/// Every file, those aside that an image of the common support leaves out among them.
pub(crate) fn image_of(store: &Store) -> Image {
    let mut image = Image::new();
    for name in store.list("") {
        if name.starts_with("partition-") {
            for inner in store.list(&name) {
                let file = format!("{name}/{inner}");
                image.insert(file.clone(), Arc::new(store.read(&file)));
            }
        } else {
            image.insert(name.clone(), Arc::new(store.read(&name)));
        }
    }
    image
}
