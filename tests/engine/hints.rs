//! Hints make opening quick and change nothing (H1): whatever becomes of them, the store says the same.
//! And what becomes of data files, with hints and without, is said, never passed over.

use std::collections::BTreeMap;

use futures::future::join_all;
use ringcask::{Compaction, Db, Durability, ErrorKind, Options};

use crate::support::{Store, bytes_of, contents, each_disk, get, seed, wait};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const FILE_HEADER_LEN: usize = 128;
const GROUP_HEADER_LEN: usize = 48;

fn options(store: &Store) -> Options {
    store.options().data_file_len_max(4096).compaction(Compaction::off())
}

fn hint_of(data_file: &str) -> String {
    data_file.replace(".data", ".hint")
}

fn accounts(db: &Db) -> [u64; 6] {
    let total = db.stats().total();
    let bytes = [total.live_bytes, total.shadow_bytes, total.dead_bytes];
    [total.keys, bytes[0], bytes[1], bytes[2], total.files, total.log_bytes]
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

/// Opens, holds against what was there, and closes.
fn check(store: &Store, model: &Model, expected: [u64; 6], what: &str) {
    let opened = store.try_open(options(store));
    let db = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(&contents(&db), model, "{what}");
    assert_eq!(accounts(&db), expected, "{what}");
    wait(db.close()).unwrap();
}

/// What is the same whenever a hint is written anew: the header says when, and by which open.
fn body(hint: &[u8]) -> &[u8] {
    hint.get(FILE_HEADER_LEN..).unwrap_or_default()
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

/// Breaks if a hint that lost its end passes for a shorter one, or is not replaced by a whole one.
#[test]
fn a_hint_cut_short_anywhere_is_no_hint() {
    let (store, model, accounts) = small_store(seed(), 1);
    let hint = hint_of(&store.data_files()[1]);
    let whole = store.read(&hint);
    for len in 0..whole.len() {
        let what = format!("cut to {len} of {} bytes", whole.len());
        let copy = store.on(store.disk().kill());
        copy.disk().truncate(copy.path().join(&hint), len as u64).unwrap();
        check(&copy, &model, accounts, &what);
        assert_eq!(body(&copy.read(&hint)), body(&whole), "{what}");
    }
    let mut longer = whole.clone();
    longer.extend_from_slice(&[0; 16]);
    let copy = store.on(store.disk().kill());
    copy.write(&hint, &longer);
    check(&copy, &model, accounts, "16 bytes longer");
    assert_eq!(body(&copy.read(&hint)), body(&whole));
}

/// Breaks if one flipped bit in a hint leads to another value, loses a key, or brings one back. What an
/// open has no need of (index and filter) it does not check, and may leave.
#[test]
fn a_flip_anywhere_in_a_hint_changes_nothing() {
    let (store, model, accounts) = small_store(seed(), 1);
    let hint = hint_of(&store.data_files()[1]);
    let whole = store.read(&hint);
    let mut left = Vec::new();
    for offset in 0..whole.len() {
        let what = format!("flipped at {offset}");
        let copy = store.on(store.disk().kill());
        copy.disk().flip(copy.path().join(&hint), offset as u64, 1 << (offset % 8)).unwrap();
        check(&copy, &model, accounts, &what);
        if body(&copy.read(&hint)) != body(&whole) {
            left.push(offset);
            // It has the word where tombstones are weighed: they stay, and nothing else changes.
            let db = copy.open_with(options(&copy));
            wait(db.compact()).unwrap();
            assert_eq!(contents(&db), model, "{what}, compacted");
            wait(db.close()).unwrap();
            copy.spoil_hints();
            let db = copy.open();
            assert_eq!(contents(&db), model, "{what}, compacted and reopened");
            wait(db.close()).unwrap();
        }
    }
    let within = left.first().zip(left.last()).map_or(0, |(first, last)| last - first + 1);
    assert_eq!(left.len(), within, "one stretch, the two sections: {left:?}");
    assert!(left.len() * 2 < whole.len(), "{} of {} bytes", left.len(), whole.len());
}

/// A hint under the wrong name, from another history of the same file, or from another store has good
/// checksums and other contents: breaks if any of them is believed.
#[test]
fn a_hint_of_something_else_is_no_hint() {
    let (store, model, accounts) = small_store(1, 2);
    let files = store.data_files();
    let hints: Vec<String> = files.iter().map(|file| hint_of(file)).collect();
    let check_with = |hint: &str, bytes: &[u8], what: &str| {
        let copy = store.on(store.disk().kill());
        copy.write(hint, bytes);
        check(&copy, &model, accounts, what);
        assert_eq!(body(&copy.read(hint)), body(&store.read(hint)), "{what}");
    };
    for hint in &hints {
        // Of other files, of the same id in the other partition among them.
        for other in hints.iter().filter(|other| *other != hint) {
            check_with(hint, &store.read(other), &format!("{other} as {hint}"));
        }
        check_with(hint, b"", "empty");
        check_with(hint, &store.read(&hint.replace(".hint", ".data")), "the data file itself");
        check_with(hint, &vec![0; 4096], "zeros");
    }
    let (other, ..) = small_store(2, 2);
    for hint in
        hints.iter().filter(|hint| other.data_files().contains(&hint.replace(".hint", ".data")))
    {
        check_with(hint, &other.read(hint), "of another store");
    }
    // Restored from a copy of the directory, and gone on with: the same store, partition and id.
    let (one, two) = (store.on(store.disk().kill()), store.on(store.disk().kill()));
    for (copy, value) in [(&one, "one"), (&two, "two")] {
        let db = copy.open_with(options(copy));
        for n in 0..6 {
            wait(db.put(format!("key {n}"), value)).unwrap();
        }
        wait(db.del(format!("key {}", value.len() + usize::from(value == "two")))).unwrap();
        wait(db.close()).unwrap();
    }
    assert_eq!(one.data_files(), two.data_files());
    let db = one.open();
    let (model, accounts_of_one) = (contents(&db), self::accounts(&db));
    wait(db.close()).unwrap();
    let new: Vec<_> = one.data_files().into_iter().filter(|file| !files.contains(file)).collect();
    assert!(!new.is_empty());
    for file in new {
        let hint = hint_of(&file);
        assert_ne!(body(&one.read(&hint)), body(&two.read(&hint)));
        one.write(&hint, &two.read(&hint));
        check(&one, &model, accounts_of_one, "of another history");
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

/// Breaks if any byte of a data file can change without that being said, or if saying so names another
/// place; with the hints there, and without, when open reads everything.
#[test]
fn a_flip_anywhere_in_a_data_file_is_found_or_harmless() {
    let (with_hints, model, _) = small_store(seed(), 1);
    let without = with_hints.on(with_hints.disk().kill());
    without.spoil_hints();
    let file = with_hints.data_files()[0].clone();
    let mut opened = [0, 0];
    let len = with_hints.read(&file).len();
    for offset in 0..len {
        for (n, store) in [&with_hints, &without].into_iter().enumerate() {
            let copy = store.on(store.disk().kill());
            copy.disk().flip(copy.path().join(&file), offset as u64, 1 << (offset % 8)).unwrap();
            let what = format!("flipped at {offset}, hints: {}", n == 0);
            opened[n] += usize::from(read_all(&copy, &file, &model, &what));
        }
    }
    let inside = len - FILE_HEADER_LEN - GROUP_HEADER_LEN;
    assert_eq!(opened, [inside, 0], "hints spare the reading, and nothing else");
}

/// Breaks if a data file that lost its end is read up to there, or one that grew is taken for sealed.
#[test]
fn a_data_file_of_another_length_is_refused() {
    let (with_hints, model, _) = small_store(seed(), 1);
    let without = with_hints.on(with_hints.disk().kill());
    without.spoil_hints();
    let file = with_hints.data_files()[1].clone();
    let whole = with_hints.read(&file).len();
    for len in (0..whole).chain([whole + 1, whole + 8, whole + 4096]) {
        for store in [&with_hints, &without] {
            let copy = store.on(store.disk().kill());
            copy.disk().truncate(copy.path().join(&file), len as u64).unwrap();
            assert!(
                !read_all(&copy, &file, &model, &format!("cut to {len}")),
                "opened, cut to {len}"
            );
        }
    }
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
