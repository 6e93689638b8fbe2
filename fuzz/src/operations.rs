//! Whatever comes after whatever, held against a map: operations, faults, kills and power cuts.
//!
//! One worker and one operation at a time, so that the simulated disk does nearly the same for the same
//! input; only upkeep runs on its own time.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use ringcask::sim::{Cut, SimDisk};
use ringcask::{Compaction, Db, Durability, Options};

use crate::support::{EIO, ENOSPC, Oracle, Store, contents, get, wait};

const KEYS: u8 = 24;
const STEPS_MAX: usize = 200;

pub fn operations(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok(mut run) = Run::start(&mut input) else { return };
    for _ in 0..STEPS_MAX {
        if input.is_empty() || run.step(&mut input).is_err() {
            break;
        }
    }
    run.restart(Restart::Kill);
    wait(run.db.close()).expect("a disk without faults");
}

struct Run {
    store: Store,
    options: Settings,
    db: Db,
    /// What the store holds, as long as nothing failed since it was opened.
    model: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What it may hold after a crash.
    oracle: Oracle,
    /// A fault was set since the store was opened: operations may fail.
    is_faulty: bool,
    values: u32,
}

#[derive(Clone, Copy)]
struct Settings {
    partitions: u32,
    file_len: u64,
    prewrite: bool,
    compaction: bool,
    durability: Durability,
}

impl Settings {
    fn of(self, store: &Store) -> Options {
        let compaction = if self.compaction { Compaction::new() } else { Compaction::off() };
        store
            .options()
            .workers(1)
            .partitions(self.partitions)
            .data_file_len_max(self.file_len)
            .prewrite(self.prewrite)
            .compaction(compaction)
            .durability(self.durability)
    }
}

enum Restart {
    Close,
    Kill,
    Cut(Cut),
}

impl Run {
    fn start(input: &mut Unstructured<'_>) -> Result<Run> {
        let options = Settings {
            partitions: input.int_in_range(1..=3)?,
            file_len: *input.choose(&[4 << 10, 8 << 10, 64 << 10])?,
            prewrite: input.arbitrary()?,
            compaction: input.arbitrary()?,
            durability: *input.choose(&[Durability::Sync, Durability::Buffered])?,
        };
        let store = Store::sim(input.arbitrary()?);
        let db = store.open_with(options.of(&store));
        let (model, oracle) = (BTreeMap::new(), Oracle::default());
        Ok(Run { store, options, db, model, oracle, is_faulty: false, values: 0 })
    }

    /// One operation. A new verb is added here.
    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=19_u8)? {
            0..=6 => self.put(input)?,
            7..=8 => self.del(input)?,
            9 => {
                let key = key(input)?;
                let found = wait(self.db.get(&key)).map(|value| value.map(Vec::from));
                self.same(found, self.model.get(&key).cloned());
            }
            10 => {
                let key = key(input)?;
                let found = wait(self.db.contains_key(&key));
                self.same(found, self.model.contains_key(&key));
            }
            11 => {
                let keys = [key(input)?, key(input)?, key(input)?];
                let found = wait(self.db.get_many(&keys));
                let found =
                    found.map(|found| found.into_iter().map(|it| it.map(Vec::from)).collect());
                self.same(
                    found,
                    keys.iter().map(|key| self.model.get(key).cloned()).collect::<Vec<_>>(),
                );
            }
            12 => self.scan(input)?,
            13 => {
                if self.worked(wait(self.db.sync())).is_some() {
                    self.oracle.all_durable();
                }
            }
            14 => {
                let _compacted = self.worked(wait(self.db.compact()));
            }
            15 => {
                self.fault(input)?;
            }
            16 => self.restart(Restart::Close),
            17 => self.restart(Restart::Kill),
            _ => {
                let cut = match input.int_in_range(0..=3_u8)? {
                    0 => Cut::DropUnsynced,
                    1 => Cut::KeepAll,
                    2 => Cut::KeepWrites(input.int_in_range(0..=20)?),
                    _ => Cut::Random { seed: input.arbitrary()? },
                };
                self.restart(Restart::Cut(cut));
            }
        }
        Ok(())
    }

    fn put(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let key = key(input)?;
        let len = match input.int_in_range(0..=7_u8)? {
            0 => input.int_in_range(0..=9000)?,
            1 => 0,
            _ => input.int_in_range(0..=200_usize)?,
        };
        self.values += 1;
        let mut value = self.values.to_le_bytes().repeat(len / 4 + 1);
        value.truncate(len);
        let durability = *input.choose(&[Durability::Sync, Durability::Buffered])?;
        self.oracle.attempt(&key, Some(&value));
        if self.worked(wait(self.db.put(&key, &value).durability(durability))).is_some() {
            self.oracle.acknowledge(&key, durability == Durability::Sync);
            self.model.insert(key, value);
        }
        Ok(())
    }

    fn del(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let key = key(input)?;
        self.oracle.attempt(&key, None);
        if let Some(was_there) = self.worked(wait(self.db.del(&key))) {
            self.oracle.acknowledge(&key, self.options.durability == Durability::Sync);
            let before = self.model.remove(&key);
            assert!(self.is_faulty || was_there == before.is_some());
        }
        Ok(())
    }

    fn scan(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (from, to) = (key(input)?, key(input)?);
        let is_reverse = input.arbitrary()?;
        if from > to {
            return Ok(());
        }
        let scan = self.db.scan().range(from.as_slice()..to.as_slice());
        let mut scan = if is_reverse { scan.reverse() } else { scan };
        let mut found = Vec::new();
        while let Some(entry) = wait(scan.next()) {
            let Some((key, value)) = self.worked(entry) else { return Ok(()) };
            found.push((key.to_vec(), value.to_vec()));
        }
        let range = self.model.range(from..to).map(|(key, value)| (key.clone(), value.clone()));
        let mut expected: Vec<_> = range.collect();
        if is_reverse {
            expected.reverse();
        }
        self.same(Ok(found), expected);
        Ok(())
    }

    fn fault(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let disk = self.store.disk();
        let op = disk.ops() + input.int_in_range(0..=40_u64)?;
        match input.int_in_range(0..=3_u8)? {
            0 => disk.crash_at(op),
            1 => disk.fail_op(op, *input.choose(&[EIO, ENOSPC])?, false),
            2 => disk.fail_syncs(EIO, false),
            // Not a fault: nothing may fail for it.
            _ => {
                disk.short_transfers(0.3);
                disk.would_block(0.3);
                return Ok(());
            }
        }
        self.is_faulty = true;
        Ok(())
    }

    /// Stops the store in one way or another, and opens what is left.
    fn restart(&mut self, how: Restart) {
        let after: SimDisk = match how {
            Restart::Close => {
                let closed = wait(self.db.close());
                if self.worked(closed).is_some() && !self.is_faulty {
                    self.oracle.all_durable();
                }
                self.store.disk().kill()
            }
            Restart::Kill => {
                let after = self.store.disk().kill();
                if self.db.stats().total().poisoned.is_some() {
                    // A sync that failed may have lost what was written before it.
                    self.oracle.forget_acknowledgements();
                } else {
                    self.oracle.all_durable();
                }
                after
            }
            Restart::Cut(cut) => {
                let after = self.store.disk().power_cut(cut);
                self.oracle.forget_acknowledgements();
                after
            }
        };
        let _old_disk = wait(self.db.close());
        self.store = self.store.on(after);
        self.db = self.store.open_with(self.options.of(&self.store));
        self.oracle.check(&self.db, "after a restart");
        self.oracle.settle(&self.db);
        self.model = contents(&self.db);
        self.is_faulty = false;
        for (key, value) in &self.model {
            assert_eq!(get(&self.db, key).as_deref(), Some(value.as_slice()));
        }
    }

    /// What an operation returned, which is an error only if the disk was made to fail.
    fn worked<T>(&self, result: ringcask::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                assert!(self.is_faulty, "nothing was made to fail: {error}");
                None
            }
        }
    }

    /// Holds a result against the model, as far as that is known.
    fn same<T: PartialEq + std::fmt::Debug>(&self, found: ringcask::Result<T>, expected: T) {
        if let Some(found) = self.worked(found)
            && !self.is_faulty
        {
            assert_eq!(found, expected);
        }
    }
}

fn key(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let number = input.int_in_range(0..=KEYS)?;
    // Some share long prefixes, some are long.
    Ok(match number % 3 {
        0 => vec![number],
        1 => format!("a common prefix {number}").into_bytes(),
        _ => vec![number; 300],
    })
}
