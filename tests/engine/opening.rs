//! What may be opened, what is refused, and that a refusal changes nothing.

use std::sync::{Arc, Mutex, mpsc};

use futures::FutureExt;
use ringcask::{Compaction, Db, Durability, Error, ErrorKind, Eviction, Options};

use crate::support::{Store, contents, each_disk, get, wait};

fn refuse(store: &Store, options: Options, kind: ErrorKind) -> Error {
    let error = store.try_open(options).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error
}

fn filled(store: &Store, partitions: u32) -> Db {
    let options = store.options().partitions(partitions).data_file_len_max(4096);
    let db = store.open_with(options);
    let puts = (0..100).map(|n| db.put(format!("key {n}"), vec![n; 100]));
    wait(futures::future::try_join_all(puts)).unwrap();
    db
}

fn check_filled(db: &Db) {
    assert_eq!(db.stats().total().keys, 100);
    for n in 0..100 {
        assert_eq!(get(db, format!("key {n}")).unwrap(), vec![n; 100]);
    }
}

/// Without it, one wrong path and an engine writes into somebody's home directory.
#[test]
fn a_foreign_directory_is_refused_and_left_as_it_was() {
    for store in [Store::uring(), Store::blocking()] {
        for (name, is_dir) in [("notes.txt", false), ("src", true), ("MANIFEST.bak", false)] {
            let path = store.path().join(name);
            if is_dir {
                std::fs::create_dir(&path).unwrap();
            } else {
                std::fs::write(&path, "mine").unwrap();
            }
            let modified = std::fs::metadata(store.path()).unwrap().modified().unwrap();
            let error = refuse(&store, store.options(), ErrorKind::NotAStore);
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(store.list(""), [name], "no LOCK either");
            assert_eq!(std::fs::metadata(store.path()).unwrap().modified().unwrap(), modified);
            if is_dir {
                std::fs::remove_dir(&path).unwrap();
            } else {
                assert_eq!(std::fs::read(&path).unwrap(), b"mine");
                std::fs::remove_file(&path).unwrap();
            }
        }
    }
}

/// A path that is a file is no store, and stays what it is.
#[test]
fn a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "mine").unwrap();
    let error = wait(Options::new().open(&path)).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

/// Breaks if a directory that happens to have the name of a data file keeps a sound store shut.
#[test]
fn a_directory_named_like_a_data_file_is_left_alone() {
    let store = Store::blocking();
    wait(store.open_one().close()).unwrap();
    std::fs::create_dir(store.path().join("partition-000/000000900.data")).unwrap();
    let db = store.open_one();
    wait(db.put("k", "v")).unwrap();
    wait(db.close()).unwrap();
    assert!(store.path().join("partition-000/000000900.data").is_dir());
}

/// Breaks if a process that was killed while it created a store has made the path unusable.
#[test]
fn a_creation_that_was_cut_short_is_completed() {
    each_disk(|store| {
        let db = store.open_with(store.options().partitions(3));
        wait(db.close()).unwrap();
        let image = store.image();
        assert!(image.contains_key("MANIFEST"));
        drop(db);
        // Any number of partitions, with and without the list, and a half-written MANIFEST.
        for keep in 0..=3 {
            let cut = Store::blocking();
            std::fs::write(cut.path().join("LOCK"), "").unwrap();
            std::fs::write(cut.path().join("MANIFEST.tmp"), &image["MANIFEST"][..10]).unwrap();
            for partition in 0..keep {
                let dir = cut.path().join(format!("partition-{partition:03}"));
                std::fs::create_dir(&dir).unwrap();
                if partition + 1 < keep {
                    let files = &image[&format!("partition-{partition:03}/FILES")];
                    std::fs::write(dir.join("FILES"), files).unwrap();
                } else {
                    std::fs::write(dir.join("FILES.tmp"), "half").unwrap();
                }
            }
            let error = refuse(&cut, cut.options().create_if_missing(false), ErrorKind::NotAStore);
            assert!(error.to_string().contains("no store"), "{error}");
            let db = cut.open_with(cut.options().partitions(2));
            wait(db.put("k", "v")).unwrap();
            wait(db.close()).unwrap();
            let db = cut.open();
            assert_eq!(get(&db, "k").unwrap(), "v");
            assert_eq!(db.stats().partitions.len(), 2);
            wait(db.close()).unwrap();
        }
    });
}

/// Keys would be looked for in the wrong partitions.
#[test]
fn a_wrong_partition_count_names_both() {
    each_disk(|store| {
        wait(filled(store, 3).close()).unwrap();
        let asked = store.options().partitions(7);
        let error = refuse(store, asked, ErrorKind::PartitionCount).to_string();
        assert!(error.contains('3') && error.contains('7'), "{error}");
        let db = store.open_with(store.options().partitions(3));
        check_filled(&db);
        wait(db.close()).unwrap();
    });
}

/// Partitions are data and workers are threads: any number of either goes with any of the other.
#[test]
fn any_number_of_workers_serves_any_number_of_partitions() {
    each_disk(|store| {
        wait(filled(store, 8).close()).unwrap();
        for (asked, used) in [(2, 2), (1, 1), (3, 3), (8, 8), (20, 8)] {
            let db = store.open_with(store.options().workers(asked));
            check_filled(&db);
            let stats = db.stats();
            assert_eq!((stats.workers, stats.partitions.len()), (used, 8));
            for n in 0..40 {
                wait(db.put(format!("key {n}"), vec![n; 100]).durability(Durability::Buffered))
                    .unwrap();
            }
            wait(db.close()).unwrap();
        }
    });
}

/// Somebody whose store does not open reads one sentence, and has to know what to do then.
#[test]
fn a_damaged_store_says_once_what_to_do() {
    for file in ["MANIFEST", "partition-000/FILES", "partition-000/000000001.data"] {
        for is_missing in [false, true] {
            let store = Store::sim(0);
            let db = store.open_one();
            wait(db.put("k", "v")).unwrap();
            wait(db.close()).unwrap();
            store.spoil_hints();
            if is_missing {
                store.remove(file);
            } else {
                let at = store.read(file).len() as u64 / 2;
                store.disk().flip(store.path().join(file), at, 1).unwrap();
            }
            let error = refuse(&store, store.options(), ErrorKind::Corrupt);
            let text = error.to_string();
            let advice = "; run `ringcask repair` or restore a backup";
            assert!(text.ends_with(advice) && text.contains(file), "{text}");
            assert_eq!((text.matches("repair").count(), text.matches("backup").count()), (1, 1));
            assert_eq!(error.location().unwrap().0, store.path().join(file));
        }
    }
}

/// Breaks if a store written by a newer build is misread, or changed.
#[test]
fn newer_versions_are_refused_as_newer() {
    for file in ["MANIFEST", "partition-000/FILES", "partition-000/000000001.data"] {
        let store = Store::blocking();
        let db = store.open_one();
        wait(db.put("k", "v")).unwrap();
        wait(db.close()).unwrap();
        let bytes = of_newer_version(file, store.read(file));
        store.write(file, &bytes);
        let before = store.image();
        let error = refuse(&store, store.options(), ErrorKind::NewerFormat);
        let name = file.rsplit('/').next().unwrap();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(store.image(), before);
    }
}

/// The bytes of a file of the store as a newer build would have begun them.
pub(crate) fn of_newer_version(file: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    if file == "MANIFEST" {
        let text = String::from_utf8(bytes).unwrap();
        let body = text.rfind("# crc32c").unwrap();
        let newer = text[..body].replace("format_version = 1", "format_version = 2");
        let crc = crc32c(0, newer.as_bytes());
        return format!("{newer}# crc32c = \"{crc:08x}\"\n").into_bytes();
    }
    // The others keep their version in the two bytes behind the magic number.
    bytes[8] = 2;
    bytes
}

/// CRC-32C, bit by bit: the tests have none of the engine's own code to trust.
/// That of what came before, or 0, is what it begins with.
pub(crate) fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let mut crc = !before;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _bit in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// A typing error in a path must not become an empty store.
#[test]
fn create_if_missing_false_creates_nothing() {
    each_disk(|store| {
        let options = || store.options().create_if_missing(false);
        refuse(store, options(), ErrorKind::NotAStore);
        assert_eq!(store.list(""), [""; 0]);
        wait(store.open().close()).unwrap();
        wait(store.open_with(options()).close()).unwrap();
    });
}

/// Breaks if a setting that cannot work is found out in the middle of the night.
#[test]
fn settings_out_of_bounds_are_refused_before_anything_happens() {
    each_disk(|store| {
        let day = std::time::Duration::from_hours(24);
        for options in [
            store.options().partitions(0),
            store.options().partitions(4097),
            store.options().workers(0),
            store.options().key_len_max(0),
            store.options().key_len_max(65_536),
            store.options().value_len_max((1 << 30) + 1),
            store.options().data_file_len_max(4095),
            store.options().data_file_len_max((1 << 32) + 1),
            store.options().mailbox_requests_max(0),
            store.options().mailbox_bytes_max(0),
            store.options().durability(Durability::Interval(std::time::Duration::ZERO)),
            store.options().durability(Durability::Interval(day)),
        ] {
            refuse(store, options, ErrorKind::InvalidArgument);
        }
        assert_eq!(store.list(""), [""; 0]);
        wait(store.open_with(store.options().partitions(1)).close()).unwrap();
    });
}

/// Breaks if a lost file looks like lost keys.
#[test]
fn a_listed_file_that_is_missing_is_damage() {
    let store = Store::uring();
    wait(filled(&store, 1).close()).unwrap();
    let files = store.data_files();
    assert!(files.len() > 2);
    for file in &files {
        let (path, aside) = (store.path().join(file), store.path().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        for _again in 0..2 {
            let error = refuse(&store, store.options(), ErrorKind::Corrupt);
            assert_eq!(error.location().unwrap().0, path.canonicalize().unwrap_or(path.clone()));
        }
        std::fs::rename(&aside, &path).unwrap();
    }
    let db = store.open();
    check_filled(&db);
    wait(db.close()).unwrap();
}

/// A power cut brings back unlinked files; read, they would bring back deleted keys (F1).
#[test]
fn an_unlisted_data_file_is_never_read() {
    each_disk(|store| {
        let db = store.open_one();
        wait(db.put("k", "old")).unwrap();
        wait(db.close()).unwrap();
        let old = store.read("partition-000/000000001.data");
        store.write("partition-000/000000007.data", &old);
        let db = store.open();
        assert_eq!(contents(&db).len(), 1);
        assert_eq!(store.data_files(), ["partition-000/000000001.data"]);
        wait(db.put("k", "new")).unwrap();
        // The id was taken once, and is not given again.
        assert_eq!(store.data_files().last().unwrap(), "partition-000/000000008.data");
        wait(db.close()).unwrap();
        let db = store.open();
        assert_eq!(get(&db, "k").unwrap(), "new");
        wait(db.close()).unwrap();
    });
}

/// F1: an unlisted file is removed, but not by an open that is refused. Breaks if a file that somebody put into
/// another partition by mistake is gone before anybody can put it back.
#[test]
fn a_refused_open_removes_nothing() {
    let store = Store::sim(0);
    wait(filled(&store, 2).close()).unwrap();
    let (file, elsewhere) = ("partition-001/000000001.data", "partition-000/000000777.data");
    let bytes = store.read(file);
    store.write(elsewhere, &bytes);
    store.remove(file);
    // One worker opens both partitions, one after the other, and then two of them.
    for workers in [1, 2] {
        refuse(&store, store.options().workers(workers), ErrorKind::Corrupt);
        assert_eq!(store.read(elsewhere), bytes);
    }
    store.write(file, &bytes);
    let db = store.open();
    check_filled(&db);
    assert!(!store.data_files().contains(&elsewhere.to_owned()));
    wait(db.close()).unwrap();
}

/// Editors, file managers and administrators leave files behind; they are theirs.
#[test]
fn strangers_in_partition_directories_are_ignored_and_kept() {
    each_disk(|store| {
        wait(filled(store, 1).close()).unwrap();
        let strangers = [
            "partition-000/notes.txt",
            "partition-000/1.data",
            "partition-000/000000001.data~",
            "partition-000/000000001.DATA",
            "partition-000/0000000099.data",
            "partition-000/99999999999999999999.data",
            "partition-000/18446744073709551615.data.bak",
            "README",
        ];
        for stranger in strangers {
            store.write(stranger, b"mine");
        }
        let db = store.open();
        check_filled(&db);
        wait(db.put("k", "v")).unwrap();
        wait(db.close()).unwrap();
        for stranger in strangers {
            assert_eq!(store.read(stranger), b"mine", "{stranger}");
        }
    });
}

/// A file named with the largest number there is must not make the next one overflow.
#[test]
fn a_file_of_the_largest_id_does_not_stop_the_store() {
    each_disk(|store| {
        wait(filled(store, 1).close()).unwrap();
        store.write("partition-000/18446744073709551615.data", b"mine");
        let db = store.open();
        check_filled(&db);
        wait(db.put("k", "v")).unwrap();
        wait(db.close()).unwrap();
        let db = store.open();
        assert_eq!(get(&db, "k").unwrap(), "v");
        wait(db.close()).unwrap();
    });
}

/// Creating anew over partitions with data would delete it.
#[test]
fn a_missing_manifest_is_damage_while_there_is_data() {
    for with_lists in [true, false] {
        let store = Store::blocking();
        wait(filled(&store, 2).close()).unwrap();
        std::fs::remove_file(store.path().join("MANIFEST")).unwrap();
        if !with_lists {
            for partition in ["partition-000", "partition-001"] {
                std::fs::remove_file(store.path().join(partition).join("FILES")).unwrap();
            }
        }
        let before = store.image();
        let error = refuse(&store, store.options(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("MANIFEST"), "{error}");
        assert_eq!(store.image(), before, "nothing was overwritten");
    }
}

/// Breaks if a service that restarts in a loop fills the directory.
#[test]
fn opening_and_closing_creates_no_files() {
    each_disk(|store| {
        let db = store.open_one();
        assert_eq!(get(&db, "missing"), None);
        wait(db.sync()).unwrap();
        assert!(contents(&db).is_empty());
        wait(db.close()).unwrap();
        assert_eq!(store.data_files(), [""; 0]);
        for _again in 0..3 {
            wait(store.open().close()).unwrap();
        }
        assert_eq!(store.data_files(), [""; 0]);
        wait(filled(store, 1).close()).unwrap();
        let before = store.image();
        for _again in 0..3 {
            let db = store.open();
            check_filled(&db);
            wait(db.close()).unwrap();
        }
        assert_eq!(store.image(), before);
    });
}

/// After a failed open the path is free, and the next one sees the same.
#[test]
fn a_failed_open_leaves_no_lock() {
    each_disk(|store| {
        wait(filled(store, 4).close()).unwrap();
        let file = store.data_files()[0].clone();
        let good = store.read(&file);
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        store.write(&file, &bad);
        for _again in 0..5 {
            refuse(store, store.options().workers(4), ErrorKind::Corrupt);
        }
        store.write(&file, &good);
        let db = store.open();
        check_filled(&db);
        wait(db.close()).unwrap();
    });
}

/// An open that is given up while it loads. Breaks if it goes on all the same, and evicts what the next one, which has
/// no bound, would have had.
#[test]
fn an_open_that_nobody_awaits_evicts_nothing() {
    each_disk(|store| {
        wait(filled(store, 1).close()).unwrap();
        let (loading, is_loading) = mpsc::channel();
        let (given_up, is_given_up) = mpsc::channel::<()>();
        let is_given_up = Mutex::new(is_given_up);
        let options = store.options().entries_max(10).eviction(Eviction::Lru);
        let options = options.on_open_progress(move |_| {
            let _told_before = loading.send(());
            let _given_up_before = is_given_up.lock().unwrap().recv();
        });
        let mut opening = options.open(store.path()).boxed();
        assert!((&mut opening).now_or_never().is_none());
        is_loading.recv().unwrap();
        drop(opening);
        drop(given_up);
        let db = loop {
            match store.try_open(store.options()) {
                Err(error) if error.kind() == ErrorKind::Locked => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        check_filled(&db);
        wait(db.close()).unwrap();
    });
}

/// Breaks if a long open is silent, or says that it has done more than there is.
#[test]
fn an_open_tells_how_far_it_has_come() {
    let store = Store::sim(0);
    let options = || store.options().partitions(3).compaction(Compaction::off());
    let db = store.open_with(options().data_file_len_max(4096));
    for n in 0..200 {
        wait(db.put(format!("{n}"), vec![n; 200])).unwrap();
    }
    wait(db.close()).unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = calls.clone();
    let db =
        store.open_with(options().on_open_progress(move |done| seen.lock().unwrap().push(done)));
    let calls = calls.lock().unwrap();
    let last = calls.last().unwrap();
    assert_eq!((last.files, last.files_total), (db.stats().total().files, last.files));
    assert_eq!(last.records, 200);
    assert!(calls.windows(2).all(|pair| pair[0].files <= pair[1].files));
    assert!(calls.len() as u64 > last.files && last.files > 10);
    wait(db.close()).unwrap();
}
