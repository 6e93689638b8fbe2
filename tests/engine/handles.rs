//! Descriptors: a store with more files than the process may open works all the same.

use crate::support::{Store, contents, each_disk, get, until, wait};
use ringcask::{Compaction, Durability};

/// Descriptors of this process that are open on data files of the store.
fn open_data_files(store: &Store) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
        let name = target.to_string_lossy().into_owned();
        let is_data =
            name.trim_end_matches(" (deleted)").contains("partition-") && name.contains(".data");
        count += usize::from(target.starts_with(store.path()) && is_data);
    }
    count
}

/// Breaks if a descriptor is not given up, or a file that was given up is not opened again.
#[test]
fn files_beyond_the_limit_are_closed_and_opened_when_they_are_read() {
    each_disk(|store| {
        let options = || {
            let options = store.options().partitions(1).data_file_len_max(4096);
            options.open_files_max(3).compaction(Compaction::off())
        };
        let db = store.open_with(options());
        for n in 0..200_u32 {
            let value = vec![n as u8; 400];
            wait(db.put(n.to_le_bytes(), value).durability(Durability::Buffered)).unwrap();
        }
        let check = |db: &ringcask::Db| {
            for n in (0..200_u32).chain((0..200).rev()) {
                assert_eq!(get(db, n.to_le_bytes()).unwrap(), vec![n as u8; 400]);
            }
            assert_eq!(contents(db).len(), 200);
        };
        check(&db);
        let total = db.stats().total();
        assert!(
            total.files > 15 && total.files_open <= 4,
            "{} of {}",
            total.files_open,
            total.files
        );
        assert!(total.files_opened > 20, "{}", total.files_opened);
        wait(db.close()).unwrap();

        let db = store.open_with(options());
        assert!(db.stats().total().files_open <= 3);
        check(&db);
        // Closing is for upkeep, which may be a little behind.
        let is_closed = |open: &usize| store.is_sim() || *open <= 4;
        until("descriptors are given up", || open_data_files(store), is_closed);
        wait(db.close()).unwrap();
        assert_eq!(open_data_files(store), 0);
    });
}

/// Breaks if a scan needs a file that compaction removed while its descriptor was given up.
#[test]
fn a_scan_outlives_files_whose_descriptors_were_given_up() {
    each_disk(|store| {
        let options = store.options().partitions(1).data_file_len_max(4096).open_files_max(1);
        let db = store.open_with(options.compaction(Compaction::off()));
        for n in 0..100_u32 {
            wait(db.put(n.to_le_bytes(), vec![n as u8; 300])).unwrap();
        }
        for n in (0..100_u32).step_by(2) {
            wait(db.put(n.to_le_bytes(), vec![n as u8; 301])).unwrap();
        }
        let mut scan = db.scan();
        let (first, _) = wait(scan.next()).unwrap().unwrap();
        assert_eq!(first[..], 0_u32.to_le_bytes());
        let mut keys = 1;
        let mut done = None;
        while let Some(entry) = wait(scan.next()) {
            let (key, value) = entry.unwrap();
            let n = u32::from_le_bytes(key[..].try_into().unwrap());
            assert_eq!(value, vec![n as u8; 300 + usize::from(n % 2 == 0)]);
            keys += 1;
            if keys == 10 {
                done = Some(wait(db.compact()).unwrap());
            }
        }
        assert_eq!(keys, 100);
        assert!(done.unwrap().records_dropped >= 50);
        drop(scan);
        wait(db.close()).unwrap();
    });
}

/// Breaks if every file that compaction has replaced while a snapshot reads it takes a descriptor for as long as that lives.
#[test]
fn files_that_only_a_snapshot_reads_are_bounded_too() {
    for store in [Store::uring(), Store::blocking()] {
        let options = store.options().partitions(1).data_file_len_max(4096).open_files_max(3);
        let db = store.open_with(options.compaction(Compaction::off()));
        let put_all = |value: u8| {
            for n in 0..200_u32 {
                let put = db.put(n.to_le_bytes(), vec![value; 400]);
                wait(put.durability(Durability::Buffered)).unwrap();
            }
        };
        put_all(1);
        let snapshot = wait(db.snapshot()).unwrap();
        let then = store.data_files();
        assert!(then.len() > 15);
        for value in 2..5 {
            put_all(value);
            wait(db.compact()).unwrap();
            for n in (0..200_u32).rev() {
                let value = wait(snapshot.get(n.to_le_bytes())).unwrap();
                assert_eq!(value.unwrap(), vec![1; 400]);
            }
            // The table's, the active file, as many again without a name; upkeep may be a little behind.
            until(
                "descriptors are given up",
                || open_data_files(&store),
                |open| *open <= 3 + 1 + 3,
            );
        }
        let there = store.data_files();
        assert!(then.iter().filter(|file| there.contains(file)).count() > 10, "{there:?}");
        drop(snapshot);
        let is_gone = |there: &Vec<String>| then.iter().all(|file| !there.contains(file));
        until("what only the snapshot held is gone", || store.data_files(), is_gone);
        assert_eq!(contents(&db).len(), 200);
        wait(db.close()).unwrap();
        assert_eq!(open_data_files(&store), 0);
    }
}
