//! Closing from anywhere, at any time, and opening again at once (X1, R1).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use ringcask::{Db, Durability, ErrorKind};

use crate::support::{Store, contents, each_disk, get, seed, wait};

/// Breaks if something is accepted after close, and then lost.
#[test]
fn after_close_everything_is_refused() {
    each_disk(|store| {
        let db = store.open();
        let other = db.clone();
        wait(db.put("k", "v")).unwrap();
        let mut begun = db.scan().keys();
        let unsent = other.put("late", "v");
        wait(db.close()).unwrap();
        let closed = |error: ringcask::Error| assert!(error.is_closed(), "{error}");
        closed(wait(other.put("k", "w")).unwrap_err());
        closed(wait(unsent).unwrap_err());
        closed(wait(other.get("k")).unwrap_err());
        closed(wait(other.get_many(["k"])).unwrap_err());
        closed(wait(other.contains_key("k")).unwrap_err());
        closed(wait(other.del("k")).unwrap_err());
        closed(wait(other.sync()).unwrap_err());
        closed(wait(other.scan().next()).unwrap().unwrap_err());
        closed(wait(begun.next()).unwrap().unwrap_err());
        wait(other.close()).unwrap();
        wait(db.close()).unwrap();
        assert_eq!(other.stats().total().keys, 1);
        let db = store.open();
        assert_eq!(contents(&db).len(), 1);
        wait(db.close()).unwrap();
    });
}

/// Breaks if the second closer is never woken.
#[test]
fn two_tasks_may_close_at_once() {
    each_disk(|store| {
        for _round in 0..5 {
            let db = store.open();
            wait(db.put("k", "v")).unwrap();
            let (a, b) = wait(async { futures::join!(db.close(), db.close()) });
            assert!(a.is_ok() && b.is_ok());
            let db = store.open();
            std::thread::scope(|scope| {
                let closers: Vec<_> = (0..3).map(|_| scope.spawn(|| wait(db.close()))).collect();
                for closer in closers {
                    closer.join().unwrap().unwrap();
                }
            });
        }
    });
}

/// Breaks if close loses a request, or a caller waits for ever (R1): each gets one answer, and `Ok`
/// means it is there.
#[test]
fn a_thousand_operations_in_flight_at_close_are_answered() {
    let random = &mut fastrand::Rng::with_seed(seed());
    for store in [Store::uring(), Store::blocking(), Store::sim(random.u64(..))] {
        for round in 0..6 {
            let options =
                store.options().mailbox_requests_max(if round % 2 == 0 { 64 } else { 4096 });
            let db = store.open_with(options.data_file_len_max(64 << 10));
            let after = random.usize(..800);
            let (begin, begun) = mpsc::channel();
            let acknowledged = std::thread::scope(|scope| {
                let writers: Vec<_> = (0..4)
                    .map(|thread| {
                        let (db, begin) = (&db, begin.clone());
                        scope.spawn(move || {
                            let puts = (0..250).map(|n| {
                                let begin = begin.clone();
                                async move {
                                    let key = format!("{round} {thread} {n}");
                                    begin.send(()).unwrap();
                                    let put = db.put(&key, key.as_str()).await;
                                    let answers = [
                                        put.clone(),
                                        db.get(&key).await.map(drop),
                                        db.sync().await,
                                        db.del("missing").await.map(drop),
                                    ];
                                    for error in answers.into_iter().filter_map(Result::err) {
                                        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                                    }
                                    put.is_ok().then_some(key)
                                }
                            });
                            wait(join_all(puts))
                        })
                    })
                    .collect();
                begun.iter().take(after).for_each(drop);
                wait(db.close()).unwrap();
                drop(begin);
                let all = writers.into_iter().flat_map(|writer| writer.join().unwrap());
                all.flatten().collect::<Vec<String>>()
            });
            let db = store.open();
            for key in acknowledged {
                assert_eq!(get(&db, &key).expect("acknowledged"), key);
            }
            wait(db.close()).unwrap();
        }
    }
}

/// Runs a closure when it is woken, once, on whichever thread wakes.
struct OnWake<F>(Mutex<Option<F>>, AtomicBool);

impl<F: FnOnce() + Send> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        let run = self.0.lock().unwrap().take();
        if let Some(run) = run {
            run();
            self.1.store(true, Ordering::Release);
        }
    }
}

/// Polls a scan with a waker that runs `on_wake`, until an answer has woken it on a worker.
fn run_in_a_waker(db: Db, on_wake: impl FnOnce(Db) + Send + 'static) {
    let (sender, woken) = mpsc::channel();
    // A scan does not keep the store open, so the closure can have the only handle.
    let mut scan = db.scan().keys();
    let waker = Arc::new(OnWake(
        Mutex::new(Some(move || {
            on_wake(db);
            sender.send(std::thread::current().name().unwrap_or_default().to_owned()).unwrap();
        })),
        AtomicBool::new(false),
    ));
    let as_waker = Waker::from(waker.clone());
    if scan.poll_next_unpin(&mut Context::from_waker(&as_waker)).is_ready() {
        // Every answer was there before the waker was: then nobody calls it but us.
        as_waker.wake();
        return;
    }
    let thread = woken.recv().unwrap();
    assert!(thread.starts_with("ringcask-"), "woken on {thread}");
}

/// Breaks if closing takes a lock that a worker holds while it wakes callers, or waits for itself.
#[test]
fn a_waker_on_the_worker_may_close_the_store() {
    each_disk(|store| {
        for _round in 0..5 {
            let db = store.open_one();
            wait(db.put("k", "v")).unwrap();
            let other = db.clone();
            run_in_a_waker(db, |db| {
                let mut closing = Box::pin(async move { db.close().await });
                let _polled = closing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            });
            wait(other.close()).unwrap();
            assert!(wait(other.get("k")).unwrap_err().is_closed());
        }
    });
}

/// Breaks if the last handle cannot be dropped where a task happens to end.
#[test]
fn a_waker_on_the_worker_may_drop_the_last_handle() {
    each_disk(|store| {
        for round in 0..5 {
            let db = store.open_one();
            wait(db.put(format!("{round}"), "v")).unwrap();
            run_in_a_waker(db, drop);
            let db = store.open_one();
            assert_eq!(db.stats().total().keys, round + 1);
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if an embedder that drops and opens again sees `Locked`, or loses what was acknowledged.
#[test]
fn drop_without_close_and_open_again_at_once() {
    each_disk(|store| {
        for round in 0..15 {
            let options = store.options().data_file_len_max(8 << 10);
            let db = store.open_with(options.durability(Durability::Buffered));
            assert_eq!(db.stats().total().keys, round * 20);
            let puts = (0..20).map(|n| db.put(format!("{round} {n}"), vec![1; 500]));
            assert!(wait(join_all(puts)).iter().all(Result::is_ok));
            let second = db.clone();
            drop(db);
            assert!(get(&second, format!("{round} 0")).is_some(), "a handle is left");
        }
        let db = store.open();
        assert_eq!(db.stats().total().keys, 300);
        wait(db.close()).unwrap();
    });
}

/// Breaks if the `open` future, dropped half way, leaves a store that stays open for ever.
#[test]
fn an_open_that_nobody_waits_for_closes_again() {
    each_disk(|store| {
        for round in 0..10 {
            let mut opening = Box::pin(store.options().open(store.path()));
            // On a busy machine it may be open already; then the handle is dropped with the result.
            let _polled = opening.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            drop(opening);
            let db = store.open_with(store.options().lock_wait(Duration::from_secs(20)));
            wait(db.put(format!("{round}"), "v")).unwrap();
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if an `open` that waits for the lock goes on waiting when its future is dropped, to change the store's key
/// long after, for example.
#[test]
fn an_open_that_nobody_waits_for_does_not_wait_for_the_lock() {
    each_disk(|store| {
        let db = store.open();
        let (sender, ended) = mpsc::channel::<()>();
        let options = store.options().lock_wait(Duration::from_secs(3600));
        let options = options.on_open_progress(move |_| sender.send(()).unwrap());
        let mut opening = Box::pin(options.open(store.path()));
        assert!(opening.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        // By then it waits; if not, there is nothing to give up.
        std::thread::sleep(Duration::from_millis(50));
        drop(opening);
        // The sender goes with the options.
        let gone = ended.recv_timeout(Duration::from_secs(60));
        assert_eq!(gone, Err(mpsc::RecvTimeoutError::Disconnected));
        wait(db.close()).unwrap();
    });
}

/// Two instances on one store would write over each other.
#[test]
fn a_store_that_is_open_is_locked() {
    each_disk(|store| {
        let db = store.open();
        wait(db.put("k", "v")).unwrap();
        let error = store.try_open(store.options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().contains(&*store.path().to_string_lossy()), "{error}");
        assert!(get(&db, "k").is_some());
        wait(db.close()).unwrap();
        wait(store.open().close()).unwrap();
    });
}

/// Breaks if `lock_wait` gives up early, or does not look again.
#[test]
fn lock_wait_waits_for_the_other_instance() {
    each_disk(|store| {
        let db = store.open();
        std::thread::scope(|scope| {
            let options = store.options().lock_wait(Duration::from_secs(60));
            let second = scope.spawn(|| store.open_with(options));
            // Some of these run while the other waits; none may disturb it.
            for n in 0..50 {
                wait(db.put(format!("{n}"), "v")).unwrap();
            }
            wait(db.close()).unwrap();
            let second = second.join().unwrap();
            assert_eq!(second.stats().total().keys, 50);
            wait(second.close()).unwrap();
        });
    });
}

/// A scan, or a future, that outlives the last handle ends; it neither hangs nor keeps the lock.
#[test]
fn streams_outlive_the_store() {
    each_disk(|store| {
        let db = store.open();
        for n in 0..200 {
            wait(db.put(format!("{n:03}"), vec![1; 100]).durability(Durability::Buffered)).unwrap();
        }
        let mut scan = db.scan();
        assert!(wait(scan.next()).unwrap().is_ok());
        drop(db);
        let db = store.open();
        let mut ended = false;
        while let Some(entry) = wait(scan.next()) {
            ended = entry.is_err_and(|error| error.is_closed());
        }
        assert!(ended);
        let mut page = db.scan();
        drop(page.next().now_or_never());
        wait(db.close()).unwrap();
        drop(page);
    });
}
