//! A full disk: deleting and compacting work on it, and make it end.

use ringcask::{Compaction, Db, Durability, ErrorKind, WriteBatch};

use crate::support::{Store, bytes_of, contents, get, seed, wait};

const FILE_LEN: u64 = 16 << 10;

/// A store on a disk that has no byte left, and the number of keys it took.
fn full(store: &Store, compaction: Compaction, spare: u64) -> (Db, u32) {
    let options = store.options().partitions(1).data_file_len_max(FILE_LEN);
    let db = store.open_with(options.compaction(compaction));
    let random = &mut fastrand::Rng::with_seed(1);
    for n in 0..200_u32 {
        wait(db.put(n.to_le_bytes(), bytes_of(random, 500))).unwrap();
    }
    store.disk().capacity_bytes(Some(store.used_bytes() + spare));
    for n in 200_u32.. {
        if let Err(error) = wait(db.put(n.to_le_bytes(), bytes_of(random, 500))) {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            return (db, n);
        }
    }
    unreachable!("the disk was never full")
}

/// D1: breaks if a deletion needs space that only deleting could free.
#[test]
fn deleting_and_compacting_free_space_on_a_full_disk() {
    for (round, spare) in (0..40_000).step_by(1777).enumerate() {
        for compaction in [Compaction::off(), Compaction::new()] {
            let store = Store::sim(seed());
            let (db, count) = full(&store, compaction, spare);
            let before = contents(&db);
            let kept = |n: u32| if round % 2 == 0 { n.is_multiple_of(5) } else { n > 150 };
            for n in (0..count).filter(|n| !kept(*n)) {
                let del = wait(db.del(n.to_le_bytes())).or_else(|error| {
                    // The reserve is for so many deletions only, and then compaction makes space.
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                    wait(db.compact())?;
                    wait(db.del(n.to_le_bytes()))
                });
                assert!(del.unwrap(), "{n} of {count}");
            }
            wait(db.compact()).unwrap();
            let len: usize = store.data_files().iter().map(|file| store.read(file).len()).sum();
            let kept_count = (0..count).filter(|n| kept(*n)).count();
            assert!(len < kept_count * 600 + 2 * FILE_LEN as usize, "{len} for {kept_count}");
            // The space is there for puts too.
            for n in 0..20_u32 {
                wait(db.put(format!("after {n}"), vec![7; 500])).unwrap();
            }
            let check = |db: &Db| {
                for n in 0..count {
                    let expected = before.get(&n.to_le_bytes()[..]).filter(|_| kept(n));
                    assert_eq!(get(db, n.to_le_bytes()).as_deref(), expected.map(Vec::as_slice));
                }
                assert_eq!(get(db, "after 19").unwrap(), vec![7; 500]);
            };
            check(&db);
            assert!(db.stats().total().poisoned.is_none());
            wait(db.close()).unwrap();
            let db = store.open();
            check(&db);
            wait(db.close()).unwrap();
        }
    }
}

/// SP2: breaks if a put that fails takes a deletion of the same group with it, or the deletion of a
/// later put of its key is lost.
#[test]
fn deletions_among_puts_that_do_not_fit_are_done() {
    let store = Store::sim(seed());
    let (db, count) = full(&store, Compaction::off(), 0);
    let puts = (0..50).map(|n| db.put(format!("new {n}"), vec![1; 500]));
    let dels = (0..50_u32).map(|n| db.del(n.to_le_bytes()));
    let (puts, dels) = wait(futures::future::join(
        futures::future::join_all(puts),
        futures::future::join_all(dels),
    ));
    assert!(puts.iter().all(|put| put.as_ref().is_err_and(|e| e.kind() == ErrorKind::NoSpace)));
    assert!(dels.iter().all(|del| *del.as_ref().unwrap()));
    let after = store.on(store.disk().kill());
    after.disk().capacity_bytes(None);
    for db in [db, after.open()] {
        assert_eq!(contents(&db).len() as u32, count - 50);
        assert!((0..50_u32).all(|n| get(&db, n.to_le_bytes()).is_none()));
        wait(db.close()).unwrap();
    }
}

/// SP1: breaks if puts eat up what was kept for deletions, or stay refused when there is space.
#[test]
fn puts_wait_for_space_and_then_go_on() {
    let store = Store::sim(seed());
    let (db, _) = full(&store, Compaction::off(), 0);
    assert!(wait(db.del(0_u32.to_le_bytes())).unwrap());
    for n in 0..30 {
        let error = wait(db.put(format!("{n}"), "v")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
    }
    for n in 1..100_u32 {
        assert!(wait(db.del(n.to_le_bytes())).unwrap());
    }
    store.disk().capacity_bytes(None);
    wait(db.put("k", "v")).unwrap();
    wait(db.put("buffered", "v").durability(Durability::Buffered)).unwrap();
    wait(db.close()).unwrap();
    let db = store.open();
    assert_eq!(db.stats().total().keys, contents(&db).len() as u64);
    wait(db.close()).unwrap();
}

/// SP3: breaks if many deletions that happen together need space that each of them alone would have found, or if
/// one of several partitions that ends up without space leaves half of them undone.
#[test]
fn a_batch_of_deletions_is_done_on_a_full_disk() {
    for partitions in [1, 3] {
        let mut again = 0;
        for spare in (0..12_000).step_by(800) {
            let store = Store::sim(seed());
            let options = store.options().partitions(partitions).data_file_len_max(FILE_LEN);
            let db = store.open_with(options.compaction(Compaction::off()));
            for n in 0..300_u32 {
                wait(db.put(n.to_le_bytes(), vec![1; 500])).unwrap();
            }
            store.disk().capacity_bytes(Some(store.used_bytes() + spare));
            let mut is_full = vec![false; partitions as usize];
            let mut count = 300_u32;
            while is_full.contains(&false) {
                let key = count.to_le_bytes();
                is_full[db.partition_of(key)] = wait(db.put(key, vec![1; 500])).is_err();
                count += 1;
            }
            let before = contents(&db);
            let mixed = WriteBatch::new().del(0_u32.to_le_bytes()).put("new", vec![2; 500]);
            let mixed = (1..50_u32).fold(mixed, |batch, n| batch.del(n.to_le_bytes()));
            let error = wait(db.write(mixed)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            assert_eq!(contents(&db), before);

            let dels = (0..50_u32).fold(WriteBatch::new(), |batch, n| batch.del(n.to_le_bytes()));
            let done = wait(db.write(&dels)).or_else(|error| {
                // What one partition has given up the others may have taken.
                assert!(
                    partitions > 1 && error.kind() == ErrorKind::NoSpace,
                    "{spare} spare: {error}"
                );
                assert_eq!(contents(&db), before);
                again += 1;
                store.disk().capacity_bytes(Some(store.used_bytes() + (128 << 10)));
                wait(db.write(&dels))
            });
            let done = done.unwrap_or_else(|error| panic!("{partitions}, {spare} spare: {error}"));
            assert_eq!((done.dels, done.were_there), (50, 50));
            let after = store.on(store.disk().kill());
            after.disk().capacity_bytes(None);
            if let Err(error) = wait(db.compact()) {
                // Nor need there be room for a copy where several have given up what they held.
                assert!(partitions > 1 && error.kind() == ErrorKind::NoSpace, "{error}");
                store.disk().capacity_bytes(None);
                wait(db.compact()).unwrap();
            }
            let after = after.open();
            assert_eq!(contents(&after).len(), before.len() - 50);
            for db in [db, after] {
                assert!((0..50_u32).all(|n| get(&db, n.to_le_bytes()).is_none()));
                assert!((50..300_u32).all(|n| get(&db, n.to_le_bytes()).is_some()));
                wait(db.close()).unwrap();
            }
        }
        assert!(again < 8, "{again} of 15 batches over {partitions} partitions did not fit");
    }
}
