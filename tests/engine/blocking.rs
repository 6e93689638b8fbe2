//! The store without a runtime: every method does what its counterpart does, wherever it is called.

use std::time::{Duration, UNIX_EPOCH};

use ringcask::{Blocking, Durability, ErrorKind, Expected, Swap, Ttl};

use crate::support::{Store, each_disk, seed, wait};

const HOUR: Duration = Duration::from_secs(3600);

/// Breaks if a method waits for another one than its name says.
#[test]
fn every_method_is_that_of_the_handle() {
    each_disk(|store| {
        let db = store.options().partitions(2).open_blocking(store.path()).unwrap();
        db.put("a", "1").unwrap();
        assert_eq!(db.get("a").unwrap().unwrap(), "1");
        assert_eq!(db.get_many(["a", "b"]).unwrap(), [Some("1".into()), None]);
        assert_eq!(db.get_range("a", ..0).unwrap().unwrap(), "");
        assert!(db.contains_key("a").unwrap() && !db.contains_key("b").unwrap());
        let entry = db.entry("a").unwrap().unwrap();
        assert_eq!((entry.value_len, entry.expires_at), (1, None));
        assert_eq!(db.get_with_info("a").unwrap(), Some(("1".into(), entry)));
        assert!(db.put_if_absent("b", "2").unwrap() && !db.put_if_absent("b", "3").unwrap());
        assert!(db.put_if_present("b", "3").unwrap() && !db.put_if_present("c", "3").unwrap());
        assert_eq!(db.compare_and_swap("c", Expected::Absent, "x").unwrap(), Swap::Done);
        assert_eq!(db.compare_and_del("c", "y").unwrap(), Swap::Mismatch(Some("x".into())));
        assert!(db.compare_and_del("c", "x").unwrap().is_done());
        assert_eq!(db.get_and_put("b", "4").unwrap().unwrap(), "3");
        assert_eq!(db.append("b", "2").unwrap(), 2);
        assert_eq!(db.incr("b", 1).unwrap(), 43);
        assert!(db.expire("b", HOUR).unwrap());
        assert!(matches!(db.ttl("b").unwrap(), Ttl::Left(left) if left <= HOUR));
        assert!(db.persist("b").unwrap());
        assert_eq!(db.ttl("b").unwrap(), Ttl::Forever);
        db.wait(db.handle().put("d", "5").ttl(HOUR).durability(Durability::Buffered)).unwrap();
        assert_eq!(db.ttl("missing").unwrap(), Ttl::Missing);
        assert_eq!(db.get_and_del("d").unwrap().unwrap(), "5");
        assert!(db.del("a").unwrap() && !db.del("a").unwrap());
        assert!(db.expire_at("b", UNIX_EPOCH).unwrap());
        assert_eq!(db.get("b").unwrap(), None);
        db.sync().unwrap();
        db.compact().unwrap();
        assert_eq!(db.stats().total().keys, db.keys().count() as u64);

        let other = db.clone();
        db.close().unwrap();
        other.close().unwrap();
        assert_eq!(other.put("a", "1").unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(other.get("a").unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_scan_is_an_iterator() {
    let store = Store::sim(seed());
    let db = store.open().blocking();
    for n in 0..300 {
        db.put(format!("{n:03}"), n.to_string()).unwrap();
    }
    let all: Vec<_> = db.scan().collect::<Result<_, _>>().unwrap();
    assert_eq!(all.len(), 300);
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let keys: Vec<_> = db.keys().map(Result::unwrap).collect();
    assert!(keys.iter().eq(all.iter().map(|(key, _)| key)));
    let some = db.iter(db.handle().scan().prefix("02").reverse().limit(3));
    let some: Vec<_> = some.map(|entry| entry.unwrap().1).collect();
    assert_eq!(some, ["29", "28", "27"]);
    // Left half way, and the store closed under it.
    let mut left = db.scan();
    assert!(left.next().is_some());
    db.close().unwrap();
    assert!(left.any(|entry| entry.is_err_and(|error| error.is_closed())));
}

/// Breaks if waiting takes the thread's wake-ups from whoever else sleeps on it, or refuses to run there: in a
/// task of a runtime, in an executor of the `futures` crate, in a future that is waited for itself.
#[test]
fn it_may_be_called_where_something_runs_already() {
    each_disk(|store| {
        let db = store.open().blocking();
        let work = |name: &str| {
            for n in 0..20 {
                db.put(format!("{name} {n}"), "v").unwrap();
            }
            assert_eq!(db.get(format!("{name} 7")).unwrap().unwrap(), "v");
        };
        let handle = db.handle().clone();
        let mixed = |name: &'static str| {
            let handle = handle.clone();
            async move {
                for n in 0..20 {
                    handle.put(format!("{name} async {n}"), "v").await.unwrap();
                    work(name);
                }
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { futures::join!(mixed("tokio"), mixed("tokio too")) });
        wait(async { futures::join!(mixed("futures"), mixed("futures too")) });
        db.wait(async { futures::join!(mixed("waiting"), mixed("waiting too")) });
        // A stream is polled again and again, each time by another wait.
        let mut keys = db.handle().scan().keys();
        let mut count = 0;
        while let Some(key) = db.wait(keys.next()) {
            key.unwrap();
            work("inside");
            count += 1;
        }
        assert!(count >= 6 * 40, "{count}");
        db.close().unwrap();
    });
}

#[test]
fn threads_share_a_store() {
    each_disk(|store| {
        let db = store.open().blocking();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let db: Blocking = db.clone();
                scope.spawn(move || {
                    for n in 0..50 {
                        db.incr("all", 1).unwrap();
                        db.put(format!("{thread} {n}"), [thread; 30]).unwrap();
                    }
                });
            }
        });
        assert_eq!(db.incr("all", 0).unwrap(), 400);
        assert_eq!(db.scan().count(), 401);
        db.close().unwrap();
    });
}
