//! Hints make opening quick and change nothing (H1): whatever becomes of them, the store says the same.
//! And what becomes of data files, with hints and without, is said, never passed over.

use std::collections::BTreeMap;

use futures::future::join_all;
use ringcask::{Compaction, Durability, ErrorKind, Options};

use crate::support::{Store, accounts, bytes_of, contents, each_disk, get, seed, wait};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const FILE_HEADER_LEN: usize = 128;
const GROUP_HEADER_LEN: usize = 48;

fn options(store: &Store) -> Options {
    store.options().data_file_len_max(4096).compaction(Compaction::off())
}

fn hint_of(data_file: &str) -> String {
    data_file.replace(".data", ".hint")
}

/// A closed store with three small files in each of so many partitions: puts, overwrites, and deletions
/// of keys in the same file and in older ones.
fn small_store(seed: u64, partitions: u32) -> (Store, Model, [u64; 6]) {
    let store = Store::sim(seed);
    let options = options(&store).partitions(partitions).data_file_records_max(6);
    let db = store.open_with(options);
    for n in 0..u64::from(partitions) * 16 {
        let key = format!("key {}", n % (u64::from(partitions) * 7));
        if n % 5 == 4 {
            wait(db.del(&key)).unwrap();
        } else {
            wait(db.put(&key, format!("value {n} of {seed}"))).unwrap();
        }
    }
    let model = contents(&db);
    wait(db.close()).unwrap();
    let db = store.open();
    let accounts = accounts(&db);
    wait(db.close()).unwrap();
    (store, model, accounts)
}

/// Breaks if a file is sealed and its hint forgotten: by a rotation, by closing, by recovery, by
/// compaction.
#[test]
fn every_sealed_file_has_a_hint_once_the_store_is_closed() {
    each_disk(|store| {
        for life in 0..4_u8 {
            let db = store.open_with(options(store).partitions(2));
            let puts = (0..160).map(|n| db.put(format!("{}", n % 100), vec![life; 150]));
            assert!(wait(join_all(puts)).iter().all(Result::is_ok));
            if life % 2 == 1 {
                wait(db.compact()).unwrap();
            }
            let killed = (store.is_sim() && life == 2).then(|| {
                let killed = store.on(store.disk().kill());
                wait(killed.open_with(options(&killed)).close()).unwrap();
                killed
            });
            let store = killed.as_ref().unwrap_or(store);
            wait(db.close()).unwrap();
            let files = store.data_files();
            assert!(files.len() >= 4);
            for file in files {
                let hint = store.read(&hint_of(&file));
                assert!(hint.len() > FILE_HEADER_LEN, "{} of {file}", store.name());
            }
        }
    });
}

/// Breaks if a clean open reads the data: with every byte between header and closing mark of every file
/// changed, it has to find nothing amiss, and every read of a value something.
#[test]
fn a_clean_open_reads_no_records() {
    for partitions in [1, 2] {
        let (store, model, accounts_then) = small_store(1, partitions);
        for file in store.data_files() {
            let mut bytes = store.read(&file);
            let end = bytes.len() - GROUP_HEADER_LEN;
            bytes[FILE_HEADER_LEN..end].iter_mut().for_each(|byte| *byte ^= 0x55);
            store.write(&file, &bytes);
        }
        let db = store.open_with(options(&store));
        assert_eq!(accounts(&db), accounts_then);
        for key in model.keys() {
            let error = wait(db.get(key)).unwrap_err();
            let (path, offset) = error.location().unwrap();
            assert!(error.is_corrupt() && offset >= FILE_HEADER_LEN as u64, "{error}");
            assert!(path.extension().is_some_and(|extension| extension == "data"), "{error}");
        }
        assert!(wait(db.scan().next()).unwrap().unwrap_err().is_corrupt());
        assert_eq!(get(&db, "never there"), None);
        wait(db.put("new", "v")).unwrap();
        wait(db.close()).unwrap();
        let db = store.open();
        assert_eq!(get(&db, "new").unwrap(), "v");
        wait(db.close()).unwrap();
    }
}

/// On a real disk: breaks if a hint that cannot be opened keeps the store shut.
#[test]
fn a_hint_that_is_missing_or_no_file_is_no_hint() {
    for store in [Store::uring(), Store::blocking()] {
        let db = store.open_with(options(&store).partitions(1));
        for n in 0..40 {
            let put = db.put(format!("{}", n % 30), vec![n; 200]);
            wait(put.durability(Durability::Buffered)).unwrap();
        }
        let expected = contents(&db);
        wait(db.close()).unwrap();
        let hints: Vec<String> = store.data_files().iter().map(|file| hint_of(file)).collect();
        let (missing, directory) = (store.path().join(&hints[0]), store.path().join(&hints[1]));
        std::fs::remove_file(&missing).unwrap();
        std::fs::remove_file(&directory).unwrap();
        std::fs::create_dir(&directory).unwrap();
        for _again in 0..2 {
            let db = store.open_with(options(&store));
            assert_eq!(contents(&db), expected);
            wait(db.close()).unwrap();
            assert!(missing.is_file() && directory.is_dir());
        }
        // What cannot be asked for its keys may hold any of them.
        let db = store.open_with(options(&store));
        wait(db.compact()).unwrap();
        assert_eq!(contents(&db), expected);
        wait(db.close()).unwrap();
        assert_eq!(contents(&store.open()), expected);
    }
}

/// Opens a store with something wrong in `file`, and reads everything: right, or refused by name.
fn read_all(store: &Store, file: &str, model: &Model, what: &str) -> bool {
    let path = store.path().join(file);
    let db = match store.try_open(options(store)) {
        Ok(db) => db,
        Err(error) => {
            // Magic and version say "newer", which is as good a refusal.
            assert!(
                error.is_corrupt() || error.kind() == ErrorKind::NewerFormat,
                "{what}: {error}"
            );
            assert!(error.to_string().contains(file), "{what}: {error}");
            if let Some((at_path, _)) = error.location() {
                assert_eq!(at_path, path, "{what}");
            }
            return false;
        }
    };
    for (key, value) in model {
        match wait(db.get(key)) {
            Ok(found) => assert_eq!(found.as_deref(), Some(&value[..]), "{what}"),
            Err(error) => {
                assert!(error.is_corrupt(), "{what}: {error}");
                assert_eq!(error.location().unwrap().0, path, "{what}");
            }
        }
    }
    let mut scan = db.scan();
    while let Some(entry) = wait(scan.next()) {
        match entry {
            Ok((key, value)) => {
                assert_eq!(model.get(&key[..]).map(|v| &v[..]), Some(&value[..]), "{what}");
            }
            Err(error) => assert!(error.is_corrupt(), "{what}: {error}"),
        }
    }
    assert_eq!(get(&db, "never there"), None, "{what}");
    wait(db.close()).unwrap();
    true
}

/// What a lost stretch of a drive looks like. Breaks if what lies in it reads as missing, or if what lies
/// before and behind it cannot be had.
#[test]
fn forty_kib_of_zeros_in_a_data_file_are_found() {
    const ZEROS: usize = 40 << 10;
    let random = &mut fastrand::Rng::with_seed(seed());
    let store = Store::sim(0);
    let db = store.open_with(store.options().partitions(1).compaction(Compaction::off()));
    let mut model = Model::new();
    for n in 0..600 {
        let (key, value) = (format!("key {n:03}").into_bytes(), bytes_of(random, 300));
        wait(db.put(&key, &value).durability(Durability::Buffered)).unwrap();
        model.insert(key, value);
    }
    wait(db.put("key 000", &model[&b"key 000"[..]])).unwrap();
    wait(db.close()).unwrap();
    let file = store.data_files()[0].clone();
    let len = store.read(&file).len();
    for from in (FILE_HEADER_LEN..len - ZEROS - GROUP_HEADER_LEN).step_by(17_003) {
        let copy = store.on(store.disk().kill());
        let mut bytes = store.read(&file);
        bytes[from..from + ZEROS].fill(0);
        copy.write(&file, &bytes);
        let what = format!("zeros from {from}");
        assert!(read_all(&copy, &file, &model, &what), "{what}: its hint is sound");
        let db = copy.open_with(options(&copy));
        let read = model.keys().filter(|key| wait(db.get(key)).is_ok()).count();
        let lost = model.len() - read;
        assert!((90..130).contains(&lost), "{what}: {lost} values are lost");
        let error = wait(db.compact()).unwrap_err();
        let at = error.location().unwrap().1 as usize;
        assert!(at <= from && from - at < 500, "{what}: {error}");
        assert_eq!(copy.read(&file), bytes, "it stays as it is");
        wait(db.close()).unwrap();
        copy.spoil_hints();
        let error = copy.try_open(options(&copy)).unwrap_err();
        assert_eq!(error.location().unwrap().1 as usize, at, "{what}: {error}");
    }
}

/// Breaks if keys come out of a hint as others: prefixes are compressed there, and keys sorted. Damaged
/// values prove that nothing but hints was read.
#[test]
fn keys_of_all_sorts_load_from_hints() {
    let random = &mut fastrand::Rng::with_seed(seed());
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for key in [
        "a", "A", "aa", "Aa", "aA", "ab", "b", " ", "a ", "\0", "a\0", "a\0b", "ä", "Ä", "a\u{308}",
    ] {
        keys.push(key.as_bytes().to_vec());
    }
    keys.extend([vec![0xff], vec![0xff; 2], vec![0xff; 300], vec![0; 300], vec![0; 301]]);
    for len in [1, 127, 128, 129, 255, 256, 257, 4095, 4096, 32_767, 32_768, 65_534, 65_535] {
        keys.push(vec![b'x'; len]);
        let mut last_differs = vec![b'x'; len];
        *last_differs.last_mut().unwrap() = b'y';
        keys.push(last_differs);
        keys.push(bytes_of(random, len.max(8)));
    }
    for n in 0..400_u32 {
        keys.push(n.to_le_bytes().to_vec());
        keys.push(format!("a common prefix of some length/{n}").into_bytes());
    }
    random.shuffle(&mut keys);
    for records_max in [1, 7, 1 << 20] {
        let store = Store::sim(0);
        let options = |store: &Store| {
            let options = store.options().partitions(1).compaction(Compaction::off());
            options.data_file_records_max(records_max)
        };
        let db = store.open_with(options(&store));
        let mut model = Model::new();
        let keys = if records_max == 1 { &keys[..60] } else { &keys[..] };
        let puts = keys.iter().enumerate().map(|(n, key)| {
            let value = format!("value of {n}");
            model.insert(key.clone(), value.clone().into_bytes());
            db.put(key, value).durability(Durability::Buffered)
        });
        assert!(wait(join_all(puts.collect::<Vec<_>>())).iter().all(Result::is_ok));
        for key in keys.iter().step_by(9) {
            if model.remove(key).is_some() {
                assert!(wait(db.del(key)).unwrap());
            }
        }
        assert_eq!(contents(&db), model);
        let records = db.stats().total().commit_records;
        wait(db.close()).unwrap();
        let files = store.data_files();
        assert_eq!(files.len() as u64, records.div_ceil(records_max), "{records} records");
        let db = store.open_with(options(&store));
        assert_eq!(contents(&db), model);
        assert_eq!(db.stats().total().keys as usize, model.len());
        wait(db.close()).unwrap();
        // And it was the hints that it came from.
        for file in files {
            let mut bytes = store.read(&file);
            let end = bytes.len() - GROUP_HEADER_LEN;
            bytes[FILE_HEADER_LEN..end].iter_mut().for_each(|byte| *byte ^= 0x55);
            store.write(&file, &bytes);
        }
        let db = store.open_with(options(&store));
        assert_eq!(db.stats().total().keys as usize, model.len());
        for key in model.keys() {
            assert!(wait(db.get(key)).unwrap_err().is_corrupt());
        }
        wait(db.close()).unwrap();
    }
}
