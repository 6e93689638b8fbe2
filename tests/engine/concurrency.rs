//! Many requests at once, races on one key, a full mailbox, and futures that are dropped.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::future::join_all;
use ringcask::limits::READ_NOW_LEN_MAX;
use ringcask::{Db, Durability};

use crate::support::{Store, bytes_of, contents, each_disk, get, seed, wait};

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Breaks if two groups share an offset, or a reply goes to another caller.
#[test]
fn a_thousand_puts_in_flight_are_all_there_now_and_after_reopen() {
    each_disk(|store| {
        let db = store.open_one();
        let value = |n: u32| format!("value {n} {}", "x".repeat(n as usize % 300));
        let puts = (0..1000).map(|n| db.put(format!("key {n}"), value(n)));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        let check = |db: &Db| {
            for n in 0..1000 {
                assert_eq!(get(db, format!("key {n}")).unwrap(), value(n));
            }
            assert_eq!(db.stats().total().keys, 1000);
        };
        check(&db);
        wait(db.close()).unwrap();
        let db = store.open();
        check(&db);
        wait(db.close()).unwrap();
    });
}

/// Breaks if memory and log disagree about which of two racing writes was the last (K3).
#[test]
fn what_racing_writes_leave_is_what_a_reopen_finds() {
    let random = &mut fastrand::Rng::with_seed(seed());
    for store in [Store::uring(), Store::sim(random.u64(..))] {
        let rounds = if store.is_sim() { 40 } else { 10 };
        for round in 0..rounds {
            let db = store.open_with(store.options().data_file_len_max(16 << 10));
            let threads = 4;
            let keys = 3_u32;
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let (db, seed) = (&db, random.u64(..));
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        for n in 0..5 {
                            let writes = (0..10_u32).map(|m| {
                                let key = format!("key {}", random.u32(..keys));
                                let durable =
                                    [Durability::Sync, Durability::Buffered][random.usize(..2)];
                                let is_del = random.u8(..4) == 0;
                                async move {
                                    if is_del {
                                        db.del(&key).await.map(drop)
                                    } else {
                                        let value = format!("{round} {thread} {n} {m}");
                                        db.put(&key, value).durability(durable).await
                                    }
                                }
                            });
                            let done = wait(join_all(writes));
                            assert!(done.iter().all(Result::is_ok));
                        }
                    });
                }
            });
            let before = contents(&db);
            wait(db.close()).unwrap();
            let db = store.open();
            assert_eq!(contents(&db), before, "round {round}");
            wait(db.close()).unwrap();
        }
    }
}

/// Breaks if `del` lies about what was there, or misses a put that is on its way.
#[test]
fn del_says_whether_the_key_was_there_also_behind_writes_in_flight() {
    each_disk(|store| {
        let db = store.open_one();
        for round in 0..20 {
            let key = format!("key {round}");
            // Sent in this order, and a partition takes them in this order.
            let mut put = db.put(&key, "v");
            let mut first = db.del(&key).boxed();
            let mut second = db.del(&key).boxed();
            let polled = poll_once(&mut put);
            assert!(polled.is_pending() || matches!(polled, Poll::Ready(Ok(()))));
            let first_polled = poll_once(&mut first);
            let second_polled = poll_once(&mut second);
            if polled.is_pending() {
                wait(put).unwrap();
            }
            let was_there = match first_polled {
                Poll::Ready(answer) => answer.unwrap(),
                Poll::Pending => wait(first).unwrap(),
            };
            let again = match second_polled {
                Poll::Ready(answer) => answer.unwrap(),
                Poll::Pending => wait(second).unwrap(),
            };
            assert_eq!((was_there, again), (true, false), "round {round}");
            assert_eq!(get(&db, &key), None);
        }
        wait(db.close()).unwrap();
        let db = store.open();
        assert_eq!(db.stats().total().keys, 0);
        wait(db.close()).unwrap();
    });
}

/// Exactly one of many deletions of a key finds it.
#[test]
fn one_of_racing_deletions_finds_the_key() {
    each_disk(|store| {
        let db = store.open();
        for round in 0..10 {
            wait(db.put("key", format!("{round}"))).unwrap();
            let found = std::thread::scope(|scope| {
                let dels: Vec<_> = (0..3).map(|_| scope.spawn(|| wait(db.del("key")))).collect();
                dels.into_iter()
                    .fold(0, |found, del| found + usize::from(del.join().unwrap().unwrap()))
            });
            assert_eq!(found, 1, "round {round}");
        }
        wait(db.close()).unwrap();
    });
}

/// Without it deleting what is not there fills the disk.
#[test]
fn deleting_a_missing_key_writes_nothing() {
    each_disk(|store| {
        let db = store.open_one();
        assert!(!wait(db.del("missing")).unwrap());
        assert_eq!(db.stats().total().log_bytes, 0);
        assert_eq!(store.data_files(), [""; 0]);
        wait(db.put("there", "v")).unwrap();
        let log_bytes = db.stats().total().log_bytes;
        let dels = (0..100).map(|n| db.del(format!("missing {n}")));
        assert!(wait(join_all(dels)).into_iter().all(|there| !there.unwrap()));
        assert_eq!(db.stats().total().log_bytes, log_bytes);
        wait(db.close()).unwrap();
    });
}

/// Breaks if a full mailbox drops a request, or forgets somebody who waits for room (W5).
#[test]
fn ten_times_what_fits_into_a_mailbox_is_served() {
    each_disk(|store| {
        let options = store.options().mailbox_requests_max(16).mailbox_bytes_max(10_000);
        let db = store.open_with(options.partitions(1));
        let puts = (0..160_usize).map(|n| db.put(format!("key {n}"), vec![7; n * 10]));
        let gets = (0..160).map(|n| db.get(format!("key {n}")));
        let all = async { futures::join!(join_all(puts), join_all(gets)) };
        let (puts, gets) = wait(all);
        assert!(puts.iter().all(Result::is_ok) && gets.iter().all(Result::is_ok));
        for n in 0..160_usize {
            assert_eq!(get(&db, format!("key {n}")).unwrap().len(), n * 10);
        }
        // From many threads, with some that wait behind one that needs all the room there is.
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let db = &db;
                scope.spawn(move || {
                    let puts = (0..100_usize).map(|n| {
                        let len = if n % 10 == thread { 20_000 } else { n };
                        db.put(format!("{thread} {n}"), vec![7; len])
                    });
                    assert!(wait(join_all(puts)).iter().all(Result::is_ok));
                });
            }
        });
        assert_eq!(db.stats().total().keys, 560);
        assert_eq!(db.stats().total().queue_depth, 0);
        wait(db.close()).unwrap();
    });
}

/// "Sent at its first poll" is what lets callers build a put and think again.
#[test]
fn a_put_that_is_never_polled_does_nothing() {
    each_disk(|store| {
        let db = store.open();
        for n in 0..100 {
            drop(db.put(format!("key {n}"), "v"));
            drop(db.del("key"));
        }
        wait(db.sync()).unwrap();
        let total = db.stats().total();
        assert_eq!((total.puts, total.dels, total.keys, total.log_bytes), (0, 0, 0, 0));
        wait(db.close()).unwrap();
    });
}

/// Breaks if dropping a future frees what its write still uses, or loses room in the mailbox (U1).
#[test]
fn dropped_futures_leave_a_store_that_works() {
    let seed = seed();
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed);
        let options = store.options().mailbox_requests_max(8).mailbox_bytes_max(50_000);
        let db = store.open_with(options.partitions(1).data_file_len_max(64 << 10));
        let value = |n: usize| vec![n as u8; 100 + n * 37 % 9000];
        let rounds = if store.is_sim() { 30 } else { 10 };
        for round in 0..rounds {
            let mut puts: Vec<_> =
                (0..40).map(|n| Some(db.put(format!("{round} {n}"), value(n)))).collect();
            let mut gets: Vec<_> =
                (0..40).map(|n| db.get(format!("{round} {n}")).boxed()).collect();
            let mut dels: Vec<_> = (0..5).map(|n| db.del(format!("{round} {n}")).boxed()).collect();
            let mut done = vec![false; puts.len()];
            for (n, put) in puts.iter_mut().enumerate() {
                match put.as_mut().map(poll_once) {
                    Some(Poll::Ready(answer)) => {
                        answer.unwrap();
                        done[n] = true;
                        *put = None;
                    }
                    // Most are waiting for room now, some are in the log.
                    _ if random.bool() => *put = None,
                    _ => {}
                }
            }
            for del in &mut dels {
                drop(poll_once(del));
            }
            for get in &mut gets {
                drop(poll_once(get));
            }
            drop((gets, dels));
            for (n, put) in puts.into_iter().enumerate() {
                if let Some(put) = put {
                    wait(put).unwrap();
                    done[n] = true;
                }
            }
            for (n, done) in done.into_iter().enumerate() {
                let found = get(&db, format!("{round} {n}"));
                if n >= 5 {
                    assert!(!done || found.is_some(), "{round} {n}");
                }
                assert!(found.is_none_or(|found| found == value(n)), "whole or not at all");
            }
            let mut scan = db.scan();
            assert!(wait(scan.next()).is_some_and(|entry| entry.is_ok()));
            drop(scan);
            let mut keys = db.scan().keys();
            drop(poll_once(&mut keys.next().boxed()));
        }
        wait(db.sync()).unwrap();
        let before = contents(&db);
        wait(db.close()).unwrap();
        let db = store.open();
        assert_eq!(contents(&db), before);
        wait(db.close()).unwrap();
    });
}

/// Breaks if what a scan reads ahead takes the room from whoever writes what he finds: while he does, the scan is not
/// polled.
#[test]
fn whoever_writes_from_within_a_scan_goes_on() {
    each_disk(|store| {
        let options = store.options().mailbox_requests_max(1).durability(Durability::Buffered);
        let db = store.open_with(options.partitions(2));
        for n in 0..20 {
            // So long that a worker is asked for it.
            wait(db.put(format!("key {n}"), vec![7; READ_NOW_LEN_MAX + 1])).unwrap();
        }
        // Two of them at once: one's readers queue before the other's write.
        let rewrite = async |to: &str| {
            let mut scan = db.scan().prefix("key ");
            while let Some(entry) = scan.next().await {
                let (key, value) = entry.unwrap();
                db.put([to.as_bytes(), &key].concat(), value).await.unwrap();
            }
        };
        wait(async { futures::join!(rewrite("one "), rewrite("two ")) });
        assert_eq!(wait(db.count()).unwrap(), 60);
        wait(db.close()).unwrap();
    });
}

/// Breaks if a caller that gave up waiting for room takes the room with it, or one that is not polled keeps it.
#[test]
fn room_that_was_waited_for_is_handed_on() {
    let random = &mut fastrand::Rng::with_seed(seed());
    let big = bytes_of(random, 1 << 20);
    each_disk(|store| {
        let options = store.options().mailbox_requests_max(1).mailbox_bytes_max(1 << 20);
        let db = store.open_with(options.partitions(1).durability(Durability::Buffered));
        for round in 0..20 {
            let mut waiting: Vec<_> =
                (0..20).map(|n| db.put(format!("{round} {n}"), &big[..1 << (n % 15)])).collect();
            let mut last = db.put("last", format!("{round}"));
            let unfinished: Vec<bool> =
                waiting.iter_mut().map(|put| poll_once(put).is_pending()).collect();
            let last_answer = poll_once(&mut last);
            let mut kept = Vec::new();
            for (n, put) in waiting.into_iter().enumerate() {
                if unfinished[n] && n % 3 == round % 3 {
                    kept.push(put);
                }
            }
            // Those before it are let in though nobody polls them.
            if last_answer.is_pending() {
                wait(last).unwrap();
            }
            let kept = wait(join_all(kept));
            assert!(kept.iter().all(Result::is_ok));
            assert_eq!(get(&db, "last").unwrap(), format!("{round}"));
        }
        wait(db.close()).unwrap();
    });
}
