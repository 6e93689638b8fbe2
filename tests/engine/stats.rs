//! Counts that add up: operators decide by them, and compaction will.

use futures::future::join_all;
use ringcask::{Compaction, Durability};

use crate::support::{Store, bytes_of, contents, each_disk, get, seed, wait};

/// Breaks if live bytes drift while the store runs: compaction would choose the wrong files, or never
/// stop.
#[test]
fn live_bytes_and_keys_are_the_same_after_reopen() {
    let seed = seed();
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed);
        // What compaction does between two looks is for another test.
        let options = || {
            let options = store.options().compaction(Compaction::off());
            options.partitions(2).data_file_len_max(16 << 10)
        };
        let mut before = (0, 0, 0, 0);
        for round in 0..4 {
            let db = store.open_with(options().durability(Durability::Buffered));
            let total = db.stats().total();
            let after = (total.keys, total.live_bytes, total.shadow_bytes, total.dead_bytes);
            assert_eq!(after, before, "round {round}");
            for _ in 0..200 {
                let key = format!("{}", random.u32(..150));
                if random.u8(..4) == 0 {
                    wait(db.del(key)).unwrap();
                } else {
                    let len = random.usize(..700);
                    wait(db.put(key, bytes_of(random, len))).unwrap();
                }
            }
            let total = db.stats().total();
            assert_eq!(total.keys as usize, contents(&db).len());
            assert!(total.live_bytes > 0 && total.live_bytes < total.log_bytes);
            assert!(total.live_bytes + total.shadow_bytes + total.dead_bytes < total.log_bytes);
            before = (total.keys, total.live_bytes, total.shadow_bytes, total.dead_bytes);
            wait(db.close()).unwrap();
            let sealed = db.stats().total();
            let on_disk: usize = store.data_files().iter().map(|file| store.read(file).len()).sum();
            assert_eq!(sealed.log_bytes as usize, on_disk, "round {round}");
            assert_eq!(sealed.files as usize, store.data_files().len());
        }
    });
}

/// Breaks if a request is counted twice or not at all, or a total is not the sum of its parts.
#[test]
fn requests_are_counted_once() {
    each_disk(|store| {
        let db = store.open_with(store.options().partitions(3).workers(2));
        let puts = (0..100).map(|n| db.put(format!("{n}"), vec![1; 100]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        for n in 0..150 {
            get(&db, format!("{n}"));
        }
        for n in 90..110 {
            wait(db.del(format!("{n}"))).unwrap();
        }
        wait(db.sync()).unwrap();
        let stats = db.stats();
        let total = stats.total();
        assert_eq!((total.puts, total.dels, total.keys), (100, 20, 90));
        assert_eq!((total.gets, total.gets_missing), (150, 50));
        assert!(total.gets_hop_free <= total.gets);
        assert_eq!(total.gets, total.gets_hop_free + total.reads, "each hop was one read here");
        assert_eq!(total.commit_records, 110, "puts, and deletions of what was there");
        assert!(total.commits > 0 && total.commits <= 110 && total.syncs <= 120);
        assert!(total.commits_dsync <= total.commits);
        assert_eq!((total.commits_failed, total.queue_depth), (0, 0));
        assert!(total.poisoned.is_none());
        assert_eq!((stats.io, stats.workers, stats.partitions.len()), (store.name(), 2, 3));
        for (name, sum) in total.counts() {
            let parts = stats
                .partitions
                .iter()
                .map(|part| part.counts().into_iter().find(|(other, _)| *other == name).unwrap().1);
            assert_eq!(parts.sum::<u64>(), sum, "{name}");
        }
        wait(db.close()).unwrap();
    });
}

/// Without it nobody notices when warm reads begin to hop: they are still right, and fifty times slower.
#[test]
fn a_warm_read_does_not_hop() {
    let store = Store::sim(seed());
    let db = store.open();
    for n in 0..50 {
        wait(db.put(format!("{n}"), vec![1; n * 100])).unwrap();
        assert_eq!(get(&db, format!("{n}")).unwrap().len(), n * 100);
    }
    wait(db.put("long", vec![1; 100 << 10])).unwrap();
    let total = db.stats().total();
    assert_eq!((total.gets, total.gets_hop_free, total.reads), (50, 50, 0));
    get(&db, "long");
    let total = db.stats().total();
    assert_eq!(
        (total.gets, total.gets_hop_free, total.reads),
        (51, 50, 1),
        "too long for a caller"
    );
    wait(db.close()).unwrap();
}
