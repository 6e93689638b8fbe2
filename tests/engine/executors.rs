//! Any executor may await a future of this crate.

use futures::{Stream, StreamExt};
use ringcask::{Db, ErrorKind, Put, Scan, ScanKeys};

use crate::support::{Store, each_disk, wait};

/// Every call once, with what it must answer.
async fn exercise(store: &Store) {
    let db = store.options().partitions(2).open(store.path()).await.unwrap();
    db.put("a", "1").await.unwrap();
    db.put("b", "2").await.unwrap();
    assert_eq!(db.get("a").await.unwrap().unwrap(), "1");
    assert_eq!(db.get_many(["b", "x", "a"]).await.unwrap().len(), 3);
    assert!(db.contains_key("b").await.unwrap());
    assert!(db.del("b").await.unwrap());
    assert!(!db.contains_key("b").await.unwrap());
    db.sync().await.unwrap();
    let entries: Vec<_> = db.scan().collect().await;
    assert_eq!(entries.len(), 1);
    let puts = (0..200_u32).map(|n| db.put(n.to_le_bytes(), "x"));
    futures::future::try_join_all(puts).await.unwrap();
    db.close().await.unwrap();
    assert_eq!(db.get("a").await.unwrap_err().kind(), ErrorKind::Closed);
}

/// Breaks if a future needs a runtime of its own, or wakes only some executors.
#[test]
fn every_call_works_on_every_executor() {
    each_disk(|store| wait(exercise(store)));
    each_disk(|store| smol::block_on(exercise(store)));
    each_disk(|store| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(exercise(store));
    });
    each_disk(|store| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        runtime.unwrap().block_on(exercise(store));
    });
}

/// Breaks if tasks of a work-stealing runtime lose a wake-up when they move between threads.
#[test]
fn tasks_on_a_work_stealing_runtime_all_end() {
    each_disk(|store| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        runtime.unwrap().block_on(async {
            let db = store.options().partitions(2).open(store.path()).await.unwrap();
            let tasks: Vec<_> = (0..50_u32)
                .map(|task| {
                    let db = db.clone();
                    tokio::spawn(async move {
                        for n in 0..10_u32 {
                            let key = format!("{task}/{n}");
                            db.put(&key, key.as_str()).await.unwrap();
                            assert_eq!(db.get(&key).await.unwrap().unwrap(), key);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(db.stats().total().keys, 500);
            db.close().await.unwrap();
        });
    });
}

/// Breaks callers that spawn, or that keep a stream in a struct.
#[test]
fn futures_are_send_and_streams_unpin() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    fn send_unpin_static<T: Send + Unpin + Stream + 'static>() {}
    fn send_sync<T: Send + Sync + Clone + 'static>() {}
    fn unpin<T: Unpin + Send>() {}
    unpin::<Put<'_>>();
    send_unpin_static::<Scan>();
    send_unpin_static::<ScanKeys>();
    send_sync::<Db>();
    let store = Store::sim(0);
    let db = wait(send(store.options().open(store.path()))).unwrap();
    wait(send(db.put("k", "v"))).unwrap();
    wait(send(db.get("k"))).unwrap();
    wait(send(db.get_many(["k"]))).unwrap();
    wait(send(db.contains_key("k"))).unwrap();
    wait(send(db.del("k"))).unwrap();
    wait(send(db.sync())).unwrap();
    let mut scan = db.scan();
    assert!(wait(send(scan.next())).is_none());
    wait(send(db.close())).unwrap();
}
