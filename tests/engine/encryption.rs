//! Keys and values are encrypted on the disk, and nobody who has the key can tell.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use ringcask::{Compaction, Db, ErrorKind, Expected, Options};

use crate::support::{Store, bytes_of, contents, each_disk, get, is_hint, seed, wait};

const KEY: [u8; 32] = *b"a key of thirty-two bytes, as is";
const NEXT: [u8; 32] = [2; 32];
const WRONG: [u8; 32] = [9; 32];

fn plain(store: &Store) -> Options {
    store.options().partitions(2).data_file_len_max(16 << 10).compaction(Compaction::off())
}

fn with(store: &Store, key: [u8; 32]) -> Options {
    plain(store).encryption_key(key)
}

/// A key and a value of which every part of eight bytes would be known again.
fn entry(n: u32) -> (String, String) {
    (format!("key/{n:04}/of/somebody"), format!("<value {n:04} that nobody reads>").repeat(20))
}

fn fill(db: &Db) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let puts = (0..60).map(|n| {
        let (key, value) = entry(n);
        db.put(key, value)
    });
    wait(try_join_all(puts)).unwrap();
    for n in (0..60).step_by(7) {
        assert!(wait(db.del(entry(n).0)).unwrap());
    }
    for n in (1..60).step_by(7) {
        wait(db.put(entry(n).0, entry(n + 1000).1).ttl(Duration::from_secs(1 << 20))).unwrap();
    }
    contents(db)
}

/// Parts of keys and values that stand in any file of the store as they are.
fn legible(store: &Store) -> Vec<String> {
    let parts = ["/of/some", "omebody", "that nob", "<value 0", "key/00"];
    let mut found = Vec::new();
    for (file, bytes) in store.image() {
        for part in parts {
            if bytes.windows(part.len()).any(|at| at == part.as_bytes()) {
                found.push(format!("{part:?} in {file}"));
            }
        }
    }
    found
}

/// Breaks if any operation sees what is stored instead of what was, at any length, from memory or disk.
#[test]
fn everything_works_as_without_a_key() {
    let base = bytes_of(&mut fastrand::Rng::with_seed(seed()), 2 << 20);
    let lens = [0, 1, 255, 4095, 4096, 4097, 65_000, 65_473, 66_000, 1 << 20, 2 << 20];
    each_disk(|store| {
        let mut expected = BTreeMap::new();
        let options = || store.options().partitions(2).encryption_key(KEY);
        for round in 0..2 {
            let db = store.open_with(options());
            assert_eq!(contents(&db), expected, "round {round}");
            for len in lens {
                let key = format!("{round} {len}");
                wait(db.put(&key, base[..len].to_vec())).unwrap();
                expected.insert(key.into_bytes(), base[..len].to_vec());
            }
            let long_key = vec![b'k'; 65_535];
            wait(db.put(&long_key, "long")).unwrap();
            expected.insert(long_key, b"long".to_vec());
            for cold in [false, store.is_sim()] {
                if cold {
                    store.disk().would_block(1.0);
                }
                for len in lens {
                    let value = get(&db, format!("{round} {len}")).unwrap();
                    assert!(value == base[..len], "{len} bytes");
                    let info = wait(db.entry(format!("{round} {len}"))).unwrap().unwrap();
                    assert_eq!(info.value_len, len as u64);
                }
                wait(db.put("counter", "41")).unwrap();
                assert_eq!(wait(db.incr("counter", 1)).unwrap(), 42);
                assert_eq!(wait(db.append("counter", "0")).unwrap(), 3);
                let seqno = wait(db.entry("counter")).unwrap().unwrap().seqno;
                let swap = wait(db.compare_and_swap("counter", Expected::Seqno(seqno), "1"));
                assert!(swap.unwrap().is_done());
                assert!(wait(db.expire("counter", Duration::from_secs(600))).unwrap());
                assert!(wait(db.persist("counter")).unwrap());
                let sums = wait(try_join_all((0..50).map(|_| db.incr("counter", 1)))).unwrap();
                assert_eq!(sums.last(), Some(&51));
                assert!(!wait(db.put_if_absent("counter", "0")).unwrap());
                assert_eq!(wait(db.get_and_del("counter")).unwrap().unwrap(), "51");
                assert!(!wait(db.del("counter")).unwrap());
                if cold {
                    store.disk().would_block(0.0);
                }
            }
            assert_eq!(contents(&db), expected);
            wait(db.compact()).unwrap();
            assert_eq!(contents(&db), expected);
            wait(db.close()).unwrap();
        }
        store.spoil_hints();
        let db = store.open_with(options());
        assert_eq!(contents(&db), expected, "from data files");
        wait(db.close()).unwrap();
    });
}

/// Breaks if a key or value, or a part of one, reaches the disk as it is: in a data file, a hint, or a list.
#[test]
fn no_file_says_anything_of_keys_and_values() {
    each_disk(|store| {
        let db = store.open_with(plain(store));
        fill(&db);
        wait(db.close()).unwrap();
        assert!(legible(store).len() > 4, "without a key: {:?}", legible(store));
    });
    each_disk(|store| {
        let db = store.open_with(with(store, KEY));
        fill(&db);
        // The ends of a range are keys too.
        wait(db.delete_prefix("key/001")).unwrap();
        let expected = contents(&db);
        assert!(!expected.is_empty() && !expected.keys().any(|key| key.starts_with(b"key/001")));
        assert_eq!(legible(store), [""; 0], "before it is closed");
        wait(db.close()).unwrap();
        assert_eq!(legible(store), [""; 0], "closed, with hints");
        assert!(store.image().keys().any(|file| is_hint(file)), "there are hints");
        let db = store.open_with(with(store, KEY));
        assert_eq!(contents(&db), expected);
        wait(db.compact()).unwrap();
        assert_eq!(contents(&db), expected);
        wait(db.close()).unwrap();
        assert_eq!(legible(store), [""; 0], "compacted");
    });
}

/// Breaks if a store opens with another key or none, or if trying that changes it.
#[test]
fn a_store_opens_with_its_own_key_only() {
    each_disk(|store| {
        let db = store.open_with(with(store, KEY));
        let expected = fill(&db);
        wait(db.close()).unwrap();
        let image = store.image();
        let old = || plain(store).encryption_key_old(KEY);
        for options in [plain(store), with(store, WRONG), old()] {
            let refused = store.try_open(options).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::WrongKey, "{refused}");
            assert!(refused.to_string().contains("Options::encryption_key"), "{refused}");
            assert_eq!(store.image(), image, "nothing was changed");
        }
        let db = store.open_with(with(store, KEY));
        assert_eq!(contents(&db), expected);
        wait(db.close()).unwrap();
    });
    let shown = format!("{:?}", plain(&Store::sim(0)).encryption_key([255; 32]));
    assert!(!shown.contains("255"), "{shown}");
}

/// Breaks if what a store held before it got a key cannot be read, or stays as it is for ever.
#[test]
fn a_store_that_gets_a_key_is_encrypted_from_then_on() {
    each_disk(|store| {
        let db = store.open_with(plain(store));
        let mut expected = fill(&db);
        assert_eq!(db.stats().total().files_other_key, 0, "there is no key");
        wait(db.close()).unwrap();
        let db = store.open_with(with(store, KEY));
        assert_eq!(contents(&db), expected);
        assert!(db.stats().total().files_other_key > 0);
        // A record that is written again is encrypted too: with its old copies gone nothing is left of it.
        assert!(wait(db.expire(entry(2).0, Duration::from_secs(1 << 20))).unwrap());
        wait(db.put("new", "new")).unwrap();
        expected.insert(b"new".to_vec(), b"new".to_vec());
        wait(db.close()).unwrap();
        assert!(!legible(store).is_empty(), "old files are what they were");
        assert_eq!(store.try_open(plain(store)).unwrap_err().kind(), ErrorKind::WrongKey);
        let db = store.open_with(with(store, KEY));
        assert_eq!(contents(&db), expected);
        wait(db.compact()).unwrap();
        assert_eq!(db.stats().total().files_other_key, 0);
        assert_eq!(contents(&db), expected);
        wait(db.close()).unwrap();
        assert_eq!(legible(store), [""; 0]);
        let db = store.open_with(with(store, KEY));
        assert_eq!(contents(&db), expected);
        assert_eq!(db.stats().total().files_other_key, 0);
        wait(db.close()).unwrap();
    });
}

/// Breaks if a replaced key is needed for longer than files have it, or is not asked for while they do.
#[test]
fn a_key_is_replaced_by_compaction() {
    each_disk(|store| {
        let db = store.open_with(with(store, KEY));
        let expected = fill(&db);
        wait(db.close()).unwrap();
        let refused = store.try_open(with(store, NEXT)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WrongKey, "{refused}");
        let both = || with(store, NEXT).encryption_key_old(KEY);
        let db = store.open_with(both());
        assert_eq!(contents(&db), expected);
        assert!(db.stats().total().files_other_key > 0);
        assert!(wait(db.expire(entry(2).0, Duration::from_secs(1 << 20))).unwrap());
        wait(db.close()).unwrap();
        // By now it is the other key that the store has; what needs the old one still says so.
        let refused = store.try_open(with(store, KEY)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WrongKey, "{refused}");
        let refused = store.try_open(with(store, NEXT)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WrongKey, "{refused}");
        assert!(refused.to_string().contains("encryption_key_old"), "{refused}");
        let db = store.open_with(both());
        wait(db.compact()).unwrap();
        let total = db.stats().total();
        assert_eq!(total.files_other_key, 0);
        assert_eq!(contents(&db), expected);
        // There is nothing left to do.
        let again = wait(db.compact()).unwrap();
        assert_eq!((again.files_removed, again.files_written), (0, 0));
        wait(db.close()).unwrap();
        for spoil in [false, true] {
            if spoil {
                store.spoil_hints();
            }
            let db = store.open_with(with(store, NEXT));
            assert_eq!(contents(&db), expected);
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if checksums cannot be judged without the key, or if with it a hint is not held against its data file.
#[test]
fn verify_judges_checksums_without_the_key_and_hints_with_it() {
    each_disk(|store| {
        let db = store.open_with(with(store, KEY));
        fill(&db);
        wait(db.close()).unwrap();
        let verify = |options: Options| wait(options.verify(store.path())).unwrap();
        let (without, with_key) = (verify(plain(store)), verify(with(store, KEY)));
        assert!(without.is_sound() && with_key.is_sound(), "{without:?}");
        assert!(without.records > 60 && without.records == with_key.records);
        assert_eq!((without.undecrypted_records, without.hints), (without.records, 0));
        assert_eq!((without.hints_unjudged, without.hints_missing), (with_key.hints, 0));
        assert_eq!((with_key.undecrypted_records, with_key.misrouted_records), (0, 0));
        assert!(with_key.hints > 0 && with_key.hints_ignored.is_empty(), "{with_key:?}");
        let file = &store.data_files()[0];
        let mut bytes = store.read(file);
        let at = bytes.len() - 400;
        bytes[at] ^= 1;
        store.write(file, &bytes);
        for report in [verify(plain(store)), verify(with(store, KEY))] {
            assert_eq!(report.damage.len(), 1, "{report:?}");
            assert_eq!(report.damage[0].key, None, "what is encrypted is no key");
        }
    });
}

/// Breaks if repair needs the key, takes what it copies for something else, or forgets that a store has one.
#[test]
fn repair_keeps_what_is_sound_without_the_key() {
    each_disk(|store| {
        let db = store.open_with(with(store, KEY).partitions(1));
        let mut expected = fill(&db);
        wait(db.close()).unwrap();
        let file = &store.data_files()[0];
        let mut bytes = store.read(file);
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        store.write(file, &bytes);
        store.remove("MANIFEST");
        let report = wait(plain(store).repair(store.path())).unwrap();
        assert!(report.is_changed());
        assert!(report.records_lost <= 1, "{report:?}");
        let options = |store: &Store| plain(store).partitions(1);
        assert_eq!(store.try_open(options(store)).unwrap_err().kind(), ErrorKind::WrongKey);
        let db = store.open_with(options(store).encryption_key(KEY));
        let found = contents(&db);
        expected.retain(|key, value| found.get(key) == Some(value));
        assert!(expected.len() + 1 >= found.len(), "at most one has an older value");
        assert!(found.len() > 45, "{} keys", found.len());
        wait(db.compact()).unwrap();
        assert_eq!(db.stats().total().files_other_key, 0);
        assert_eq!(contents(&db), found);
        wait(db.close()).unwrap();
    });
}

/// Breaks if a file of one store, or a part of it, is taken for that of another with the same key.
#[test]
fn a_damaged_hint_is_ignored_and_made_anew() {
    let store = Store::sim(0);
    let db = store.open_with(with(&store, KEY));
    let expected = fill(&db);
    wait(db.close()).unwrap();
    let hints: Vec<String> = store.image().into_keys().filter(|file| is_hint(file)).collect();
    for (number, hint) in hints.iter().enumerate() {
        let original = store.read(hint);
        let other = store.read(&hints[(number + 1) % hints.len()]);
        let swapped = [&original[..128], &other[128..]].concat();
        let cut = original[..original.len() - 1].to_vec();
        let mut flipped = original.clone();
        flipped[128 + number % (original.len() - 128)] ^= 4;
        for changed in [swapped, cut, flipped, original[..128].to_vec()] {
            store.write(hint, &changed);
            let db = store.open_with(with(&store, KEY));
            assert_eq!(contents(&db), expected, "{hint}");
            wait(db.close()).unwrap();
            let report = wait(with(&store, KEY).verify(store.path())).unwrap();
            assert!(report.hints_ignored.is_empty() && report.is_sound(), "{report:?}");
        }
    }
}

/// Breaks if a deletion is held against deleted ranges by the encrypted key: by chance it would delete a key that
/// nobody has, and leave the one that was meant.
#[test]
fn a_deletion_beside_deleted_ranges_is_of_the_key_that_was_meant() {
    each_disk(|store| {
        let db = store.open_with(with(store, KEY));
        let key = |n: u32| format!("z{n}");
        for n in 0..40 {
            wait(db.put(key(n), "1")).unwrap();
            wait(db.put(format!("a{n}"), "1")).unwrap();
        }
        // Half of all the ways in which a key may come out.
        let (ranges, dels) = wait(async {
            let range = db.delete_range(&b"\x00"[..]..&b"y"[..]);
            futures::join!(range, futures::future::join_all((0..20).map(|n| db.del(key(n)))))
        });
        ranges.unwrap();
        assert!(dels.into_iter().all(|del| del.unwrap()));
        for n in 0..20 {
            assert!(wait(db.del(key(20 + n))).unwrap());
            assert!(!wait(db.del(format!("a{n}"))).unwrap());
        }
        assert_eq!(contents(&db).len(), 0);
        wait(db.close()).unwrap();
        let db = store.open_with(with(store, KEY));
        assert_eq!(contents(&db).len(), 0);
        wait(db.close()).unwrap();
    });
}
