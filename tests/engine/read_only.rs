//! A store that is opened read-only: what is there is what any other open finds, and no byte of it changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ringcask::sim::Cut;
use ringcask::{Compaction, Db, Durability, ErrorKind, Options, Result, WriteBatch};

use crate::support::{Store, contents, each_disk, get, seed, wait};

/// Every name below a directory, with its bytes and when it was last changed.
fn look(dir: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (name, metadata) =
            (entry.file_name().into_string().unwrap(), entry.metadata().unwrap());
        let bytes =
            if metadata.is_dir() { Vec::new() } else { std::fs::read(entry.path()).unwrap() };
        if metadata.is_dir() {
            let inner = look(&entry.path()).into_iter();
            found.extend(inner.map(|(below, what)| (format!("{name}/{below}"), what)));
        }
        found.insert(name, (bytes, metadata.modified().unwrap()));
    }
    found
}

/// A bit of everything that an open has to settle.
fn write_all_kinds(db: &Db, random: &mut fastrand::Rng) -> Result<()> {
    for round in 0..12_u8 {
        let put = |key: String| db.put(key, vec![round; 200]).durability(Durability::Buffered);
        for key in 0..4 {
            wait(put(format!("k{key}")).into_future())?;
        }
        let batch = (0..6).fold(WriteBatch::new(), |batch, key| {
            batch.put(format!("b{key}"), [round; 30]).del(format!("k{}", random.u8(..4)))
        });
        wait(db.write(batch).into_future())?;
        if round % 4 == 3 {
            wait(db.delete_prefix("b").into_future())?;
        }
        wait(db.put("mortal", [round]).ttl(Duration::from_secs(3600)).into_future())?;
    }
    Ok(())
}

fn options(store: &Store) -> Options {
    store.options().data_file_len_max(4 << 10).prewrite(true)
}

/// Every kill and many power cuts of a store with batches over two partitions, ranges and rotation. Breaks if what
/// recovery does on disk is not done in memory, or if anything is written after all.
#[test]
fn after_any_crash_it_is_what_any_open_finds() {
    let random = &mut fastrand::Rng::with_seed(seed());
    for is_encrypted in [false, true] {
        let mut store = Store::sim(random.u64(..));
        if is_encrypted {
            store = store.encrypted([7; 32]);
        }
        store.disk().record();
        let db = store.open_with(options(&store).partitions(2));
        write_all_kinds(&db, random).unwrap();
        wait(db.close()).unwrap();
        let moments = store.disk().moments();
        assert!(moments.len() > 100);
        let (mut opened, mut keys, mut torn) = (0, 0, 0);
        for moment in moments {
            let left = match random.u8(..3) {
                0 => moment.disk.kill(),
                1 => moment.disk.power_cut(Cut::DropUnsynced),
                _ => moment.disk.power_cut(Cut::Random { seed: random.u64(..) }),
            };
            let to_read = store.on(left.kill());
            let before = to_read.image();
            let ops = to_read.disk().ops();
            let read = to_read.try_open(options(&to_read).read_only(true));
            let to_write = store.on(left);
            let db = match read {
                Ok(db) => db,
                Err(error) => {
                    // Before MANIFEST is there, there is nothing to read.
                    assert_eq!(error.kind(), ErrorKind::NotAStore, "{error}");
                    assert!(to_write.list("").iter().all(|name| name != "MANIFEST"));
                    continue;
                }
            };
            let found = contents(&db);
            for (key, value) in &found {
                assert_eq!(get(&db, key).as_deref(), Some(value.as_slice()), "get and scan");
            }
            wait(db.sync()).unwrap();
            wait(db.close()).unwrap();
            assert_eq!(to_read.disk().ops(), ops, "something was written");
            assert_eq!(to_read.image(), before);
            let db = to_write.open_with(options(&to_write));
            assert_eq!(contents(&db), found);
            wait(db.close()).unwrap();
            (opened, keys) = (opened + 1, keys + found.len());
            torn += usize::from(to_write.image() != before);
        }
        // Else nothing above was tested.
        assert!(opened > 100 && keys > opened && torn > 50, "{opened}, {keys}, {torn}");
    }
}

/// The image that a killed process leaves, on a real file system, in a directory that may not be written to.
#[test]
fn not_a_byte_nor_a_time_changes() {
    for store in [Store::uring(), Store::blocking()] {
        let random = &mut fastrand::Rng::with_seed(seed());
        // So that the file with the highest number is the one that is written.
        let options_of = options(&store).partitions(3).compaction(Compaction::off());
        let db = store.open_with(options_of);
        write_all_kinds(&db, random).unwrap();
        let copy = tempfile::tempdir().unwrap();
        for (file, bytes) in store.image() {
            let path = copy.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::write(copy.path().join("LOCK"), "").unwrap();
        let last_of = |partition: u32| {
            let dir = copy.path().join(format!("partition-{partition:03}"));
            let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            names.filter(|path| path.extension().is_some_and(|end| end == "data")).max()
        };
        // Few keys need not be in every partition.
        let (tail, torn) = ((0..3).find_map(last_of).unwrap(), [1_u8; 77]);
        let bytes = [std::fs::read(&tail).unwrap().as_slice(), &torn].concat();
        std::fs::write(&tail, bytes).unwrap();
        let expected = contents(&db);
        let before = look(copy.path());
        let set_mode = |mode| {
            use std::os::unix::fs::PermissionsExt;
            for dir in ["", "partition-000", "partition-001", "partition-002"] {
                let mode = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(copy.path().join(dir), mode).unwrap();
            }
        };
        set_mode(0o500);
        let open = || wait(options(&store).read_only(true).open(copy.path())).unwrap();
        let (one, other) = (open(), open());
        assert_eq!(contents(&one), expected);
        assert_eq!(contents(&other), expected);
        for db in [one, other] {
            let _refused = wait(db.put("k", "v").into_future()).unwrap_err();
            let _refused = wait(db.compact()).unwrap_err();
            wait(db.close()).unwrap();
        }
        set_mode(0o700);
        assert_eq!(look(copy.path()), before);
        wait(db.close()).unwrap();
    }
}

#[test]
fn everything_that_writes_is_refused() {
    each_disk(|store| {
        let db = store.open_with(store.options().partitions(2));
        wait(db.put("k", "1").into_future()).unwrap();
        wait(wait(db.keyspace("space").into_future()).unwrap().put("k", "s").into_future())
            .unwrap();
        wait(db.close()).unwrap();

        let db = store.open_with(store.options().read_only(true));
        let refused = |what: &str, outcome: Result<()>| {
            let error = outcome.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::ReadOnly, "{what}: {error}");
            assert!(error.to_string().contains("Options::read_only"), "{error}");
        };
        let second = Duration::from_secs(1);
        refused("put", wait(db.put("k", "v").into_future()));
        refused(
            "put buffered",
            wait(db.put("n", "v").durability(Durability::Buffered).into_future()),
        );
        refused("del", wait(db.del("k").into_future()).map(drop));
        refused("del of nothing", wait(db.del("missing").into_future()).map(drop));
        refused("put_if_absent", wait(db.put_if_absent("n", "v").into_future()).map(drop));
        refused("incr", wait(db.incr("k", 1).into_future()).map(drop));
        let swap = db.compare_and_swap("k", "1", "2").into_future();
        refused("compare_and_swap", wait(swap).map(drop));
        refused("expire", wait(db.expire("k", second).into_future()).map(drop));
        refused("persist", wait(db.persist("k").into_future()).map(drop));
        let batch = WriteBatch::new().put("a", "1").put("b", "2").put("c", "3");
        refused("batch", wait(db.write(batch).into_future()).map(drop));
        refused("clear", wait(db.clear().into_future()));
        refused("delete_prefix", wait(db.delete_prefix("k").into_future()));
        refused("new keyspace", wait(db.keyspace("new").into_future()).map(drop));
        refused("drop_keyspace", wait(db.drop_keyspace("space")).map(drop));
        refused("compact", wait(db.compact()).map(drop));
        let to = store.beside();
        refused("backup", wait(db.backup(to.path())).map(drop));
        assert!(!to.path().join("MANIFEST").exists());

        let space = wait(db.keyspace("space").into_future()).unwrap();
        assert_eq!(get(&space, "k").as_deref(), Some(b"s".as_slice()));
        assert_eq!(get(&db, "k").as_deref(), Some(b"1".as_slice()));
        assert_eq!(db.stats().total().poisoned, None);
        wait(db.sync()).unwrap();
        wait(db.close()).unwrap();
    });
}

#[test]
fn readers_keep_a_writer_out_and_a_writer_them() {
    each_disk(|store| {
        let read = || store.try_open(store.options().read_only(true));
        assert_eq!(read().unwrap_err().kind(), ErrorKind::NotAStore);
        let writer = store.open_with(store.options().partitions(1));
        let error = read().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().contains("may write"), "{error}");
        wait(writer.close()).unwrap();

        let (one, other) = (read().unwrap(), read().unwrap());
        for reader in [one, other] {
            let error = store.try_open(store.options()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked);
            wait(reader.close()).unwrap();
        }
        wait(store.open().close()).unwrap();
    });
}

#[test]
fn a_repair_is_not_for_readers() {
    let store = Store::sim(1);
    let refused = store.try_open(store.options().read_only(true).salvage(true)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(store.list("").is_empty());
}
