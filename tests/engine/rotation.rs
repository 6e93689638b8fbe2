//! Many small data files: moving to the next one, what a sealed one is, and torn or damaged tails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::join_all;
use ringcask::{Compaction, Db, Durability};

use crate::support::{Store, bytes_of, contents, each_disk, get, seed, wait};

const GROUP_HEADER_LEN: usize = 48;
const FILE_HEADER_LEN: usize = 128;

/// Breaks if a record is lost or doubled where one file ends and the next begins.
#[test]
fn thousands_of_records_over_many_files_are_right_now_and_after_reopen() {
    let seed = seed();
    each_disk(|store| {
        for (file_len, count) in [(4 << 10, 300_usize), (16 << 10, 1000), (64 << 10, 2000)] {
            let mut random = fastrand::Rng::with_seed(seed);
            // Compaction would make the number of files a matter of time.
            let options = || {
                let options = store.options().compaction(Compaction::off());
                options.data_file_len_max(file_len).partitions(2)
            };
            let db = store.open_with(options());
            let mut expected = contents(&db);
            for batch in 0..10 {
                let entries: BTreeMap<Vec<u8>, Vec<u8>> = (0..count / 10)
                    .map(|n| {
                        let key = format!("{batch} {}", n % 97 * 7).into_bytes();
                        let len = random.usize(..400);
                        (key, bytes_of(&mut random, len))
                    })
                    .collect();
                let puts = entries
                    .iter()
                    .map(|(key, value)| db.put(key, value).durability(Durability::Buffered));
                assert!(wait(join_all(puts)).iter().all(Result::is_ok));
                expected.extend(entries);
            }
            assert_eq!(contents(&db), expected);
            let total = db.stats().total();
            assert_eq!(total.files as usize, store.data_files().len());
            wait(db.close()).unwrap();
            for file in store.data_files() {
                assert!(store.read(&file).len() as u64 <= 64 << 10, "{file}");
            }
            let db = store.open();
            assert_eq!(contents(&db), expected);
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if a record longer than a data file is refused, or drags others into its file.
#[test]
fn an_oversized_record_gets_a_file_of_its_own() {
    each_disk(|store| {
        let options = || store.options().data_file_len_max(4096);
        let db = store.open_with(options().partitions(1));
        let lens = [10, 4000, 5000, 10, 100_000, 2 << 20, 10, 10, 3 << 20, 4096, 4096];
        let puts =
            lens.iter().enumerate().map(|(n, len)| db.put(format!("{n}"), vec![n as u8; *len]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        let check = |db: &Db| {
            for (n, len) in lens.iter().enumerate() {
                assert_eq!(get(db, format!("{n}")).unwrap(), vec![n as u8; *len]);
            }
        };
        check(&db);
        wait(db.close()).unwrap();
        let files = store.data_files();
        for file in &files {
            let len = store.read(file).len();
            let alone = lens
                .iter()
                .any(|&value| value > 3000 && len > value && len < value + value / 16 + 400);
            assert!(len <= 4096 || alone, "{file} has {len} bytes");
        }
        let db = store.open();
        check(&db);
        assert_eq!(db.stats().total().files as usize, files.len());
        wait(db.close()).unwrap();
    });
}

/// Backups hard-link sealed files: changed afterwards, the backup would change too.
#[test]
fn sealed_files_are_never_touched_again() {
    use std::os::unix::fs::MetadataExt;
    for store in [Store::uring(), Store::blocking()] {
        let options = || store.options().data_file_len_max(8 << 10).compaction(Compaction::off());
        let look = |file: &String| {
            let metadata = std::fs::metadata(store.path().join(file)).unwrap();
            (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
        };
        let mut sealed = BTreeMap::new();
        for round in 0..4 {
            let db = store.open_with(options().partitions(1));
            for n in 0..60 {
                wait(db.put(format!("{n}"), vec![round; 400])).unwrap();
                if n % 7 == 0 {
                    wait(db.del(format!("{}", n / 2))).unwrap();
                }
            }
            let mut files = store.data_files();
            // The last one is active.
            files.pop();
            for file in files {
                let now = look(&file);
                assert_eq!(*sealed.entry(file).or_insert(now), now);
            }
            drop(db);
        }
        assert!(sealed.len() > 8);
        wait(store.open().close()).unwrap();
        for (file, then) in &sealed {
            assert_eq!(look(file), *then);
        }
    }
}

/// A reused id would let a stale file, or a stale link to one, pass for the new one (F1).
#[test]
fn ids_are_never_given_twice() {
    each_disk(|store| {
        let mut newest = String::new();
        for round in 0..8 {
            let options = store.options().data_file_len_max(4096);
            let db = store.open_with(options.partitions(1));
            let before = store.data_files();
            for n in 0..10 {
                wait(db.put(format!("{n}"), vec![round; 1000])).unwrap();
            }
            for file in store.data_files() {
                if !before.contains(&file) {
                    assert!(file > newest, "{file} after {newest}");
                }
            }
            newest = store.data_files().pop().unwrap();
            if round % 2 == 0 {
                wait(db.close()).unwrap();
            }
        }
    });
}

/// A store on a simulated disk that was killed, with keys `000`, `001`, … put one after the other
/// into one file, and where each group begins.
fn killed(values: &[Vec<u8>]) -> (Store, Vec<usize>) {
    let store = Store::sim(0);
    let db = store.open_with(store.options().partitions(1).prewrite(false));
    let mut starts = Vec::new();
    for (n, value) in values.iter().enumerate() {
        let len = store.data_files().first().map_or(FILE_HEADER_LEN, |file| store.read(file).len());
        starts.push(len);
        wait(db.put(format!("{n:03}"), value)).unwrap();
    }
    starts.push(store.read(FILE).len());
    let after = store.on(store.disk().kill());
    wait(db.close()).unwrap();
    (after, starts)
}

const FILE: &str = "partition-000/000000001.data";

fn check_prefix(db: &Db, values: &[Vec<u8>], what: &str) -> usize {
    let found = contents(db);
    for (n, (key, value)) in found.iter().enumerate() {
        assert_eq!(key, format!("{n:03}").as_bytes(), "{what}");
        assert_eq!(value, &values[n], "{what}");
    }
    found.len()
}

/// Bytes of an older life of the log that end up where the next group would be are not a group.
#[test]
fn stale_groups_never_come_alive() {
    let random = &mut fastrand::Rng::with_seed(seed());
    let values: Vec<_> = (0..6).map(|_| bytes_of(random, 100)).collect();
    let (store, starts) = killed(&values);
    let stale = store.read(FILE);
    // Cut in the middle of the log, opened, and written on with groups of the same lengths.
    store.disk().truncate(store.path().join(FILE), starts[3] as u64).unwrap();
    let db = store.open_with(store.options().prewrite(false));
    assert_eq!(check_prefix(&db, &values, "cut"), 3);
    for n in 3..5 {
        wait(db.put(format!("new {n}"), bytes_of(random, 96))).unwrap();
    }
    let after = store.on(store.disk().kill());
    wait(db.close()).unwrap();
    let newest = after.data_files().pop().unwrap();
    assert_ne!(newest, FILE, "writing never goes on in an old file (F4)");
    for from in 0..5 {
        let planted = after.on(after.disk().kill());
        let mut bytes = planted.read(&newest);
        bytes.extend_from_slice(&stale[starts[from]..]);
        planted.write(&newest, &bytes);
        let db = planted.open();
        assert_eq!(db.stats().total().keys, 5, "a group from offset {}", starts[from]);
        assert_eq!(get(&db, "005"), None);
        wait(db.close()).unwrap();
    }
}

/// Values that hold a copy of a group, or of a whole data file, are only values.
#[test]
fn values_that_look_like_a_log_are_values() {
    let store = Store::sim(0);
    let db = store.open_with(store.options().partitions(1).prewrite(false));
    wait(db.put("a", "1")).unwrap();
    for n in 0..5 {
        let file = store.read(FILE);
        assert!(file.len() > GROUP_HEADER_LEN);
        wait(db.put(format!("copy {n}"), file)).unwrap();
    }
    let before = contents(&db);
    let len = store.read(FILE).len() as u64;
    let killed = store.on(store.disk().kill());
    wait(db.close()).unwrap();
    for cut in [0, 1, 100, 5000] {
        let torn = killed.on(killed.disk().kill());
        torn.disk().truncate(torn.path().join(FILE), len - cut).unwrap();
        let db = torn.open();
        let found = contents(&db);
        assert_eq!(found.len(), before.len() - usize::from(cut > 0));
        assert!(found.iter().all(|(key, value)| before[key] == *value));
        wait(db.close()).unwrap();
    }
}

/// While the log moves to a new file, zeros that are due must not be written into the old one: they
/// would land behind the end of a file that is sealed and listed, which then does not open.
#[test]
fn zeros_written_ahead_never_land_in_a_sealed_file() {
    for store in [Store::uring(), Store::blocking()] {
        let db = store.open_with(store.options().partitions(1).data_file_len_max(3 << 20));
        // One of these counts uses up so many zeros that with one more group new ones are due.
        for count in (22..30).chain(22..30) {
            for n in 0..count {
                wait(db.put(format!("small {n}"), vec![1; 20_000])).unwrap();
            }
            let moved = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // Requests that make the worker look around while the log moves.
                    while !moved.load(Ordering::Relaxed) {
                        drop(db.del("missing").now_or_never());
                    }
                });
                let small = db.put("small", vec![1; 20_000]);
                // Too long for the file.
                let long = db.put("long", vec![2; 3 << 20]);
                let both = wait(async { futures::join!(small, long) });
                moved.store(true, Ordering::Relaxed);
                assert!(both.0.is_ok() && both.1.is_ok());
            });
        }
        let keys = db.stats().total().keys;
        wait(db.close()).unwrap();
        let db = store.open();
        assert_eq!(db.stats().total().keys, keys);
        wait(db.close()).unwrap();
    }
}
