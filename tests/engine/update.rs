//! Operations that look before they write: nothing comes between, whatever else goes on.

use bytes::Bytes;
use futures::future::join_all;
use futures::join;
use ringcask::sim::Cut;
use ringcask::{Durability, ErrorKind, Expected, Swap};

use crate::support::{EIO, ENOSPC, Store, each_disk, get, seed, wait};

#[test]
fn every_verb_does_what_it_says() {
    each_disk(|store| {
        let db = store.open();
        wait(async {
            assert!(!db.put_if_present("k", "0").await?);
            assert!(db.put_if_absent("k", "1").await?);
            assert!(!db.put_if_absent("k", "2").await?);
            assert!(db.put_if_present("k", "3").await?);
            assert_eq!(db.get("k").await?.unwrap(), "3");

            assert_eq!(db.get_and_put("k", "4").await?.unwrap(), "3");
            assert_eq!(db.get_and_put("new", "5").await?, None);
            assert_eq!(db.get_and_del("new").await?.unwrap(), "5");
            assert_eq!(db.get_and_del("new").await?, None);

            let mismatch = Swap::Mismatch(Some("4".into()));
            assert_eq!(db.compare_and_swap("k", "3", "6").await?, mismatch);
            assert_eq!(db.compare_and_swap("k", Expected::Absent, "6").await?, mismatch);
            assert_eq!(db.compare_and_swap("k", Some("4"), "6").await?, Swap::Done);
            assert_eq!(db.compare_and_swap("no", "4", "6").await?, Swap::Mismatch(None));
            let info = db.entry("k").await?.unwrap();
            assert_eq!(info.value_len, 1);
            assert_eq!(
                db.compare_and_swap("k", Expected::Seqno(info.seqno), "7").await?,
                Swap::Done
            );
            let mismatch = Swap::Mismatch(Some("7".into()));
            assert_eq!(db.compare_and_del("k", Expected::Seqno(info.seqno)).await?, mismatch);
            assert!(db.entry("k").await?.unwrap().seqno > info.seqno);
            assert_eq!(db.compare_and_del("k", "7").await?, Swap::Done);
            assert_eq!(db.compare_and_del("k", Expected::Absent).await?, Swap::Done);
            assert_eq!(db.entry("k").await?, None);

            assert_eq!(db.incr("n", -5).await?, -5);
            assert_eq!(db.incr("n", 15).await?, 10);
            db.put("n", "ten").await?;
            let error = db.incr("n", 1).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert_eq!(db.get("n").await?.unwrap(), "ten");
            assert_eq!(db.append("n", " and one").await?, 11);
            assert_eq!(db.append("text", "").await?, 0);
            assert_eq!(db.append("text", "abc").await?, 3);
            assert_eq!(db.get("n").await?.unwrap(), "ten and one");

            for refused in [
                db.incr("", 1).await.map(drop),
                db.put_if_absent(vec![1; 70_000], "v").await.map(drop),
                db.get_and_put("k", vec![0; (64 << 20) + 1]).await.map(drop),
            ] {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
            }
            db.close().await?;
            let error = db.incr("n", 1).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
            Ok::<_, ringcask::Error>(())
        })
        .unwrap();
        let db = store.open();
        assert_eq!(get(&db, "n").unwrap(), "ten and one");
        assert_eq!(get(&db, "k"), None);
        assert_eq!(db.stats().total().keys, 2);
        wait(db.close()).unwrap();
    });
}

/// Breaks if a value may grow beyond what can be put.
#[test]
fn an_append_stops_at_the_longest_value() {
    let store = Store::sim(seed());
    let db = store.open_with(store.options().value_len_max(10));
    assert_eq!(wait(db.append("k", "12345678")).unwrap(), 8);
    let error = wait(db.append("k", "901")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("11 bytes"), "{error}");
    assert_eq!(wait(db.append("k", "90")).unwrap(), 10);
    wait(db.close()).unwrap();
}

/// Breaks if an increment does not see one that is staged before it, or is decided while another is on its
/// way; if a cold record lets others pass; or if a failed group leaves a trace in a later one.
#[test]
fn increments_of_many_tasks_add_up() {
    each_disk(|store| {
        for cold in [false, true] {
            if store.is_sim() {
                store.disk().would_block(if cold { 1.0 } else { 0.3 });
            }
            let options = store.options().data_file_len_max(64 << 10);
            let durability = if cold { Durability::Buffered } else { Durability::Sync };
            let db = store.open_with(options.durability(durability));
            let before: Vec<i64> = (0..8).map(|key| number(get(&db, counter(key)))).collect();
            let rounds: usize = if store.is_sim() { 60 } else { 1000 };
            std::thread::scope(|scope| {
                for thread in 0..2 {
                    let db = &db;
                    scope.spawn(move || {
                        wait(join_all((0..32).map(|task| async move {
                            for round in 0..rounds {
                                let key = (thread * 3 + task * 5 + round) % 8;
                                db.incr(counter(key), 1).await.unwrap();
                            }
                        })));
                    });
                }
            });
            let sum: i64 = (0..8).map(|key| number(get(&db, counter(key))) - before[key]).sum();
            assert_eq!(sum, i64::try_from(64 * rounds).unwrap());
            wait(db.close()).unwrap();
        }
    });
}

fn counter(key: usize) -> String {
    format!("counter {key}")
}

fn succeeded<T>(answers: &[ringcask::Result<T>]) -> i64 {
    answers.iter().map(|answer| i64::from(answer.is_ok())).sum()
}

fn number(value: Option<Bytes>) -> i64 {
    value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap())
}

/// Breaks if two can win, or if a plain put or deletion slips between the look and the write.
#[test]
fn one_of_many_gets_the_lock() {
    let seed = seed();
    for cold in [0.0, 0.5, 1.0] {
        let store = Store::sim(seed);
        store.disk().would_block(cold);
        let db = store.open_one();
        for round in 0..20 {
            let tries = (0..50).map(|n| db.put_if_absent("lock", format!("{round} {n}")));
            let won = wait(join_all(tries));
            let winners: Vec<_> =
                won.iter().enumerate().filter(|(_, won)| *won.as_ref().unwrap()).collect();
            assert_eq!(winners.len(), 1, "round {round}");
            let holder = format!("{round} {}", winners[0].0);
            assert_eq!(get(&db, "lock").unwrap(), holder);
            // Sent in this order from one task, to one mailbox.
            let (taken, put, swapped, gone) = wait(async {
                join!(
                    db.get_and_del("lock"),
                    db.put("lock", "put"),
                    db.compare_and_swap("lock", "put", "swapped"),
                    db.del("lock"),
                )
            });
            assert_eq!(taken.unwrap().unwrap(), holder);
            put.unwrap();
            assert_eq!(swapped.unwrap(), Swap::Done);
            assert!(gone.unwrap());
            assert_eq!(get(&db, "lock"), None);
        }
        wait(db.close()).unwrap();
    }
}

/// Each increment that was acknowledged counts, none counts twice, and one that failed does not count at
/// all unless the store went down with it: at every operation that can fail.
#[test]
fn an_increment_that_fails_leaves_no_trace() {
    let seed = seed();
    for errno in [EIO, ENOSPC] {
        let mut nth = 0;
        loop {
            let store = Store::sim(seed);
            let options = store.options().partitions(1).data_file_len_max(4096).prewrite(false);
            let db = store.open_with(options.durability(Durability::Buffered));
            let opened = store.disk().ops();
            store.disk().fail_op(opened + nth, errno, false);
            let mut acknowledged = 0;
            for _ in 0..12 {
                let answers = wait(join_all((0..6).map(|_| db.incr("n", 1))));
                acknowledged += succeeded(&answers);
            }
            let is_done = store.disk().ops() <= opened + nth;
            store.disk().clear_faults();
            assert_eq!(number(get(&db, "n")), acknowledged, "errno {errno} at {nth}");
            let _may_be_poisoned = wait(db.close());
            let db = store.open();
            assert_eq!(number(get(&db, "n")), acknowledged, "errno {errno} at {nth}, reopened");
            wait(db.close()).unwrap();
            if is_done {
                break;
            }
            nth += 1;
        }
        assert!(nth > 10, "{nth} operations");
    }
}

/// As above when the power goes: what was acknowledged is there, what was not may be.
#[test]
fn increments_survive_a_power_cut() {
    let seed = seed();
    for crash_at in 0..150 {
        let store = Store::sim(seed ^ crash_at);
        let db = store.open_with(store.options().partitions(1).data_file_len_max(4096));
        store.disk().crash_at(store.disk().ops() + crash_at);
        let (mut attempted, mut acknowledged) = (0, 0);
        for _ in 0..20 {
            let answers = wait(join_all((0..4).map(|_| db.incr("n", 1))));
            attempted += 4;
            acknowledged += succeeded(&answers);
        }
        for cut in [Cut::DropUnsynced, Cut::KeepAll, Cut::Random { seed: crash_at }] {
            let left = store.on(store.disk().power_cut(cut));
            let db = left.open();
            let found = number(get(&db, "n"));
            assert!((acknowledged..=attempted).contains(&found), "{crash_at} {cut:?}: {found}");
            wait(db.close()).unwrap();
        }
    }
}

/// Breaks if a damaged record is taken for an absent one, and silently replaced.
#[test]
fn a_damaged_record_is_not_taken_for_an_absent_one() {
    let store = Store::sim(seed());
    let db = store.open_one();
    wait(db.put("n", "5")).unwrap();
    let file = store.path().join(&store.data_files()[0]);
    let bytes = store.disk().read_file(&file).unwrap();
    let at = bytes.windows(2).position(|pair| pair == b"n5").unwrap();
    store.disk().flip(&file, at as u64, 1).unwrap();
    for error in [
        wait(db.incr("n", 1)).unwrap_err(),
        wait(db.get_and_del("n")).unwrap_err(),
        wait(db.compare_and_swap("n", "5", "6")).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    assert!(!wait(db.put_if_absent("n", "6")).unwrap());
    wait(db.put("n", "7")).unwrap();
    assert_eq!(wait(db.incr("n", 1)).unwrap(), 8);
    drop(db);
}
