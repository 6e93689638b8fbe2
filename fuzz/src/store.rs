//! Opens stores whose files were changed.
//!
//! The images are those of small stores that were closed, killed, compacted. An input is a list of changes
//! to their files. Whatever they are, nothing panics or hangs, no value turns up that was not written,
//! a store that opens takes writes and keeps them, and one that was repaired opens.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use ringcask::sim::{Cut, SimDisk};
use ringcask::{Compaction, Db, Durability, ErrorKind, Io, Options};

use crate::support::{contents, wait};

const PATH: &str = "/store";
const CHANGES_MAX: usize = 8;
const SECTOR_LEN: usize = 512;

/// A store that is not open: its files, and the disk that has the directories they are in.
pub struct Base {
    disk: SimDisk,
    pub image: Image,
}

type Image = BTreeMap<String, Vec<u8>>;

pub fn mutated_store(bytes: &[u8]) {
    // Too few bytes end the list of changes.
    let _short = run(&mut Unstructured::new(bytes));
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let base = input.choose(bases())?;
    let mut image = base.image.clone();
    let is_forged = input.arbitrary()?;
    for _ in 0..input.int_in_range(1..=CHANGES_MAX)? {
        if change(input, &mut image).is_err() {
            break;
        }
    }
    if is_forged {
        image.iter_mut().for_each(|(name, bytes)| forge(name, bytes));
    }
    check(&base.with(&image), is_forged);
    Ok(())
}

fn check(disk: &SimDisk, is_forged: bool) {
    let options = || Options::new().io(Io::Sim(disk.clone())).pin_workers(false).workers(1);
    match wait(options().create_if_missing(false).open(PATH)) {
        Ok(db) => check_open(&db, &options(), is_forged),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let _any = wait(options().verify(PATH));
            if wait(options().repair(PATH)).is_ok() {
                match wait(options().open(PATH)) {
                    Ok(db) => check_open(&db, &options(), is_forged),
                    // What says, with a right checksum, that it needs a key is kept for who has the key.
                    Err(error) if is_forged && error.kind() == ErrorKind::WrongKey => {}
                    Err(error) => panic!("after a repair: {error}"),
                }
            }
        }
    }
}

fn check_open(db: &Db, options: &Options, is_forged: bool) {
    let mut scan = db.scan();
    let mut keys = Vec::new();
    while let Some(entry) = wait(scan.next()) {
        // Damage that opening does not look for is met by a scan, and it ends there.
        let Ok((key, value)) = entry else { break };
        assert!(is_forged || is_written(&key, &value), "{key:?} has a value that was not written");
        keys.push(key);
    }
    for key in keys {
        let Ok(value) = wait(db.get(&key)) else { continue };
        let sound = value.is_some_and(|value| is_forged || is_written(&key, &value));
        assert!(sound, "{key:?} was seen by a scan");
    }
    let is_put = wait(db.put("a new key", "a new value")).is_ok();
    let _any = wait(db.compact());
    let is_closed = wait(db.close()).is_ok();
    if is_put && is_closed {
        let db = wait(options.clone().open(PATH)).unwrap_or_else(|error| panic!("again: {error}"));
        let value = wait(db.get("a new key")).unwrap_or_else(|error| panic!("again: {error}"));
        assert_eq!(value.as_deref(), Some(b"a new value".as_slice()));
        let _any = wait(db.close());
    }
}

impl Base {
    /// A disk of its own with these files instead.
    fn with(&self, image: &Image) -> SimDisk {
        let disk = self.disk.power_cut(Cut::KeepAll);
        let path = |name: &String| format!("{PATH}/{name}");
        for (name, bytes) in
            image.iter().filter(|(name, bytes)| self.image.get(*name) != Some(bytes))
        {
            disk.write_file(path(name), bytes).expect("a disk without faults");
        }
        for name in self.image.keys().filter(|name| !image.contains_key(*name)) {
            disk.remove(path(name)).expect("a disk without faults");
        }
        disk
    }
}

/// Changes one file, or the set of files.
fn change(input: &mut Unstructured<'_>, image: &mut Image) -> Result<()> {
    let names: Vec<String> = image.keys().cloned().collect();
    let name = input.choose(&names)?;
    let other = input.choose(&names)?;
    let kind = input.int_in_range(0..=8_u8)?;
    if kind == 0 {
        image.remove(name);
        return Ok(());
    }
    let donor = image.get(other).cloned().unwrap_or_default();
    let Some(bytes) = image.get_mut(name) else { return Ok(()) };
    let at = if bytes.is_empty() { 0 } else { input.int_in_range(0..=bytes.len() - 1)? };
    let sector = at / SECTOR_LEN * SECTOR_LEN;
    let sector_end = bytes.len().min(sector + SECTOR_LEN);
    match kind {
        1 if !bytes.is_empty() => bytes[at] ^= input.arbitrary::<u8>()?,
        2 => bytes.truncate(at),
        3 => {
            let len = input.int_in_range(1..=64_usize)?;
            bytes.extend_from_slice(input.bytes(len)?);
        }
        4 => bytes.extend_from_slice(&[0; 4096]),
        5 => bytes[sector..sector_end].fill(0),
        // A sector of another file, or of another place.
        6 => {
            let from = donor.len().min(input.int_in_range(0..=64_usize)? * SECTOR_LEN);
            let len = (donor.len() - from).min(sector_end - sector);
            bytes[sector..sector + len].copy_from_slice(&donor[from..from + len]);
        }
        7 => *bytes = donor,
        _ => {
            let word = input.arbitrary::<u64>()?.to_le_bytes();
            let end = bytes.len().min(at + word.len());
            bytes[at..end].copy_from_slice(&word[..end - at]);
        }
    }
    Ok(())
}

fn forge(name: &str, bytes: &mut [u8]) {
    match name.rsplit(['/', '.']).next() {
        Some("MANIFEST") => ringcask::decoders::forge_manifest(bytes),
        Some("FILES") => ringcask::decoders::forge_files(bytes),
        Some("data") => ringcask::decoders::forge_data_file(bytes),
        Some("hint") => ringcask::decoders::forge_hint_file(bytes),
        _ => {}
    }
}

/// Values say whose they are: the key, a colon, and more.
fn is_written(key: &[u8], value: &[u8]) -> bool {
    key == b"a new key" || value.strip_prefix(key).is_some_and(|rest| rest.starts_with(b":"))
}

/// The stores that are changed.
pub fn bases() -> &'static [Base] {
    static BASES: OnceLock<Vec<Base>> = OnceLock::new();
    BASES.get_or_init(|| {
        let is = [false, true];
        let choices = is.into_iter().flat_map(|closed| is.map(|compacted| (closed, compacted)));
        choices.map(|(closed, compacted)| make(closed, compacted)).collect()
    })
}

fn make(is_closed: bool, is_compacted: bool) -> Base {
    let disk = SimDisk::new(2);
    let options = Options::new()
        .io(Io::Sim(disk.clone()))
        .pin_workers(false)
        .partitions(2)
        .prewrite(false)
        .durability(Durability::Buffered)
        .compaction(Compaction::off())
        .data_file_len_max(4096);
    let db = wait(options.open(PATH)).expect("a new store");
    for round in 0..3 {
        for n in 0..12 {
            let key = format!("key {n}");
            let value = format!("{key}:{}", "x".repeat(n * 20 + round * 100));
            wait(db.put(&key, value)).expect("a disk without faults");
        }
        wait(db.del(format!("key {round}"))).expect("a disk without faults");
    }
    wait(db.sync()).expect("a disk without faults");
    if is_compacted {
        wait(db.compact()).expect("a disk without faults");
    }
    wait(db.put("key 11", "key 11:last")).expect("a disk without faults");
    assert_eq!(contents(&db).len(), 11);
    let disk = if is_closed { disk } else { disk.kill() };
    wait(db.close()).expect("a disk without faults");
    let mut image = Image::new();
    for name in disk.list(PATH) {
        let inner = disk.list(format!("{PATH}/{name}"));
        let names = inner.iter().map(|inner| format!("{name}/{inner}"));
        for name in names.chain(inner.is_empty().then(|| name.clone())) {
            if let Some(bytes) = disk.read_file(format!("{PATH}/{name}")) {
                image.insert(name, bytes);
            }
        }
    }
    Base { disk, image }
}
