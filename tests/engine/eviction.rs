//! Stores that may hold only so much: what is refused, what goes, and that what went stays gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use ringcask::{
    Compaction, Db, Durability, ErrorKind, Eviction, Options, Result, Swap, WriteBatch,
};

use crate::support::{Store, accounts, contents, defer, each_disk, get, is_hint, seed, wait};

const POLICIES: [Eviction; 4] = [Eviction::Lru, Eviction::Lfu, Eviction::Random, Eviction::Ttl];
const HOUR: Duration = Duration::from_secs(3600);

/// One partition, so that its share is all of the bound.
fn one(store: &Store, eviction: Eviction) -> Options {
    let options = store.options().partitions(1).workers(1).compaction(Compaction::off());
    options.eviction(eviction).durability(Durability::Buffered)
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Waits until the store holds no more than so many keys: each request gives the worker a turn.
fn evicted_down_to(db: &Db, keys: u64) {
    while db.stats().total().keys > keys {
        wait(db.sync()).unwrap();
    }
}

/// Breaks if a bound lets something in, or keeps from shrinking what is at it.
#[test]
fn a_full_store_refuses_what_grows_and_nothing_else() {
    each_disk(|store| {
        let db = store.open_with(one(store, Eviction::None).entries_max(10));
        for n in 0..10 {
            wait(db.put(format!("{n}"), "value")).unwrap();
        }
        wait(async {
            let error = db.put("new", "v").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Full);
            let text = error.to_string();
            assert!(text.contains("10 keys") && text.contains("entries_max, 10;"), "{text}");
            assert_eq!(kind(db.put_if_absent("new", "v").await), ErrorKind::Full);
            assert_eq!(kind(db.incr("new", 1).await), ErrorKind::Full);
            assert_eq!(kind(db.append("new", "v").await), ErrorKind::Full);
            assert_eq!(kind(db.get_and_put("new", "v").await), ErrorKind::Full);
            assert_eq!(kind(db.compare_and_swap("new", None::<&str>, "v").await), ErrorKind::Full);
            assert_eq!(db.stats().total().writes_full, 6);
            assert_eq!(db.get("new").await?, None);

            db.put("3", "longer than what was there").await?;
            assert!(!db.put_if_absent("3", "v").await?);
            assert!(db.put_if_present("3", "v").await?);
            assert_eq!(db.compare_and_swap("3", "v", "w").await?, Swap::Done);
            assert!(!db.put_if_present("new", "v").await?);
            assert!(db.expire("3", HOUR).await? && db.persist("3").await?);
            assert!(!db.del("new").await? && db.del("4").await?);
            db.put("new", "v").await?;
            assert_eq!(kind(db.put("4", "v").await), ErrorKind::Full);
            assert_eq!(db.get_and_del("new").await?.unwrap(), "v");
            assert_eq!(db.incr("4", 1).await?, 1);
            assert_eq!(kind(db.put("new", "v").await), ErrorKind::Full);
            let total = db.stats().total();
            assert_eq!((total.keys, total.entries_max, total.evicted), (10, 10, 0));
            db.close().await
        })
        .unwrap();

        // What is there already stays, when less is allowed.
        let db = store.open_with(one(store, Eviction::None).entries_max(5));
        wait(async {
            assert_eq!(db.stats().total().keys, 10);
            db.put("3", "v").await?;
            for n in 5..10 {
                assert_eq!(kind(db.put("new", "v").await), ErrorKind::Full);
                assert!(db.del(format!("{n}")).await?);
            }
            assert_eq!(kind(db.put("new", "v").await), ErrorKind::Full);
            assert!(db.del("3").await?);
            db.put("new", "v").await?;
            db.close().await
        })
        .unwrap();
    });
}

#[test]
fn bytes_are_those_of_live_records() {
    each_disk(|store| {
        let db = store.open_with(one(store, Eviction::None).bytes_max(10_000));
        wait(async {
            db.put("a", vec![1; 5000]).await?;
            assert_eq!(kind(db.put("b", vec![2; 5000]).await), ErrorKind::Full);
            db.put("b", vec![2; 4000]).await?;
            let live = db.stats().total().live_bytes;
            assert!((9000..10_000).contains(&live), "{live}");
            // Overwritten any number of times: what is dead does not count.
            for n in 0..5 {
                db.put("b", vec![n; 4000]).await?;
            }
            assert_eq!(db.stats().total().live_bytes, live);
            assert_eq!(kind(db.put("b", vec![2; 5000]).await), ErrorKind::Full);
            assert_eq!(kind(db.append("a", vec![2; 2000]).await), ErrorKind::Full);
            db.put("a", vec![1; 3000]).await?;
            db.put("b", vec![2; 5000]).await?;
            let error = db.put("c", vec![3; 20_000]).await.unwrap_err();
            assert!(error.to_string().contains("longer than"), "{error}");
            // Not even by a little: the header of an expiry is eight bytes.
            assert!(db.expire("a", HOUR).await?);
            db.close().await
        })
        .unwrap();
        // Whatever could be evicted.
        let db = store.open_with(one(store, Eviction::Random).bytes_max(10_000));
        assert_eq!(kind(wait(db.put("c", vec![3; 10_000]))), ErrorKind::Full);
        assert_eq!(get(&db, "b").unwrap(), vec![2; 5000]);
        wait(db.put("c", vec![3; 9000])).unwrap();
        evicted_down_to(&db, 1);
        assert_eq!(get(&db, "c").unwrap(), vec![3; 9000]);
        wait(db.close()).unwrap();
    });
}

/// Breaks if what is staged and not published yet is not counted, or counted after it failed.
#[test]
fn many_at_once_get_no_further_than_one_by_one() {
    each_disk(|store| {
        let db = store.open_with(one(store, Eviction::None).entries_max(50).bytes_max(100_000));
        for round in 0..3 {
            // Of each key several puts, and deletions between them.
            let put = |n: u32| db.put(format!("{}", n % 90), vec![n as u8; 20]);
            let dels = (0..20).map(|n| db.del(format!("{n}")));
            let (puts, dels) = wait(futures::future::join(
                join_all((0..300).map(|n| put(n / 2 + round))),
                join_all(dels),
            ));
            assert!(dels.iter().all(Result::is_ok));
            let refused = puts.iter().filter(|put| put.is_err()).count();
            assert!(puts.into_iter().all(|put| put.is_ok() || kind(put) == ErrorKind::Full));
            assert!(refused > 0);
            let keys = db.stats().total().keys;
            assert!((30..=50).contains(&keys), "{keys} keys");
        }
        // All the room there is can be used, and no more.
        let free = 50 - db.stats().total().keys;
        let puts = wait(join_all((0..80).map(|n| db.put(format!("other {n}"), "v"))));
        assert_eq!(puts.iter().filter(|put| put.is_ok()).count() as u64, free);
        assert_eq!(contents(&db).len(), 50);
        wait(db.close()).unwrap();
    });
}

/// Breaks if each write of a batch is held against the bound by itself, or what it deletes makes no room.
#[test]
fn a_batch_has_room_as_a_whole_or_not_at_all() {
    each_disk(|store| {
        let db = store.open_with(one(store, Eviction::None).entries_max(10));
        let puts = |from: u32, to: u32| {
            (from..to).fold(WriteBatch::new(), |batch, n| batch.put(format!("{n}"), "v"))
        };
        wait(db.write(puts(0, 8))).unwrap();
        assert_eq!(kind(wait(db.write(puts(8, 11)))), ErrorKind::Full);
        assert_eq!(db.stats().total().keys, 8);
        assert_eq!(get(&db, "8"), None);
        wait(db.write(puts(8, 11).del("0"))).unwrap();
        // What is there already takes no room.
        wait(db.write(puts(1, 11))).unwrap();
        assert_eq!(kind(wait(db.write(puts(11, 13).del("1")))), ErrorKind::Full);
        assert_eq!((db.stats().total().keys, get(&db, "1").is_some()), (10, true));
        wait(db.close()).unwrap();

        for eviction in POLICIES {
            let db = store.open_with(one(store, eviction).entries_max(10));
            let batch = (0..60).fold(WriteBatch::new(), |batch, n| {
                batch.put_with_ttl(format!("{eviction:?} {n}"), "v", HOUR)
            });
            match wait(db.write(batch)) {
                // Nothing here expires that could go for it.
                Err(error) => assert!(eviction == Eviction::Ttl && error.kind() == ErrorKind::Full),
                Ok(_) => evicted_down_to(&db, 10),
            }
            assert!(db.stats().total().keys <= 10);
            wait(db.close()).unwrap();
        }
    });
}

/// Over partitions a batch is intents, a decision and copies, and evictions come in between: breaks if one takes
/// a key that a batch holds, or an older value of a key comes back for the newest that went.
#[test]
fn what_a_batch_over_partitions_wrote_may_go_and_stays_gone() {
    each_disk(|store| {
        let db = store.open_with(one(store, Eviction::Lru).partitions(3).entries_max(30));
        for round in 0..20 {
            let batch = (0..25).fold(WriteBatch::new(), |batch, n| {
                batch.put(format!("{round} {n}"), "v").put(format!("{n}"), round.to_string())
            });
            wait(db.write(batch)).unwrap();
            evicted_down_to(&db, 30);
        }
        let held = contents(&db);
        let total = db.stats().total();
        assert!(held.len() <= 30 && total.evicted >= 450, "{total:?}");
        let is_newest = |(key, value): (&Vec<u8>, &Vec<u8>)| key.contains(&b' ') || value == b"19";
        assert!(held.iter().all(is_newest), "an older value came back");
        wait(db.close()).unwrap();
        let db = store.open_with(store.options());
        assert_eq!(contents(&db), held);
        wait(db.close()).unwrap();
    });
}

/// Puts `count` new keys, some at once, and reads the hot ones all the time.
fn churn(db: &Db, name: &str, count: usize, hot: &[String]) {
    let mut reads = 0;
    for round in 0..count / 20 {
        let puts = (0..20).map(|n| db.put(format!("{name} {round} {n}"), "cold"));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        for _ in 0..hot.len() / 4 {
            get(db, &hot[reads % hot.len()]);
            reads += 1;
        }
    }
}

fn left(db: &Db, keys: &[String]) -> usize {
    let found = wait(db.get_many(keys)).unwrap();
    found.iter().filter(|value| value.is_some()).count()
}

/// Breaks if a policy evicts without looking at what is used: of two hundred hot keys, a fifth of all, chance
/// would leave hardly any after ten times as many new ones as there is room for.
#[test]
fn what_is_used_stays() {
    for eviction in [Eviction::Lru, Eviction::Lfu] {
        let store = Store::sim(seed());
        let db = store.open_with(one(&store, eviction).partitions(2).entries_max(1000));
        let hot: Vec<String> = (0..200).map(|n| format!("hot {n}")).collect();
        assert!(wait(join_all(hot.iter().map(|key| db.put(key, "hot")))).iter().all(Result::is_ok));
        churn(&db, "cold", 10_000, &hot);
        let stayed = left(&db, &hot);
        assert!(stayed >= 160, "{eviction:?}: {stayed} of 200 hot keys stayed");
        let total = db.stats().total();
        assert!(total.keys <= 1000 && total.evicted >= 9200, "{total:?}");

        // Fashions change: others are used now, and what was hot goes.
        let later: Vec<String> = (0..200).map(|n| format!("later {n}")).collect();
        assert!(wait(join_all(later.iter().map(|key| db.put(key, "v")))).iter().all(Result::is_ok));
        churn(&db, "colder", 20_000, &later);
        let (old, new) = (left(&db, &hot), left(&db, &later));
        assert!(old < 40 && new >= 140, "{eviction:?}: {old} old ones, {new} new ones");
        wait(db.close()).unwrap();
    }
}

/// What tells the two apart: keys that are used often, and not while many others come by once.
#[test]
fn what_is_used_often_outlives_a_scan_under_lfu() {
    let survivors = [Eviction::Lru, Eviction::Lfu].map(|eviction| {
        let store = Store::sim(seed());
        let db = store.open_with(one(&store, eviction).entries_max(1000));
        let hot: Vec<String> = (0..200).map(|n| format!("hot {n}")).collect();
        wait(join_all(hot.iter().map(|key| db.put(key, "hot"))));
        for key in hot.iter().cycle().take(200 * 300) {
            get(&db, key);
        }
        churn(&db, "once", 1800, &[]);
        let stayed = left(&db, &hot);
        wait(db.close()).unwrap();
        stayed
    });
    assert!(survivors[0] < 60 && survivors[1] > 180, "{survivors:?}");
}

/// A scan reads everything once, which says nothing about what will be read.
#[test]
fn a_scan_is_no_use_of_a_key() {
    let store = Store::sim(seed());
    let db = store.open_with(one(&store, Eviction::Lru).entries_max(400));
    let hot: Vec<String> = (0..80).map(|n| format!("hot {n}")).collect();
    wait(join_all(hot.iter().map(|key| db.put(key, "hot"))));
    for round in 0..60 {
        churn(&db, &format!("{round}"), 40, &[]);
        for key in &hot {
            get(&db, key);
        }
        contents(&db);
    }
    let stayed = left(&db, &hot);
    assert!(stayed >= 75, "{stayed} of 80 hot keys stayed");
    wait(db.close()).unwrap();
}

#[test]
fn what_expires_first_goes_first_and_nothing_that_does_not_expire() {
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(3);
        let options = || one(store, Eviction::Ttl).entries_max(100);
        let db = store.open_with(options());
        let mut order: Vec<u32> = (1..=100).collect();
        random.shuffle(&mut order);
        for n in order {
            wait(db.put(format!("{n:03}"), "v").ttl(n * HOUR)).unwrap();
        }
        for n in 0..40 {
            wait(db.put(format!("forever {n:02}"), "v")).unwrap();
        }
        evicted_down_to(&db, 100);
        let mortal: Vec<String> = (41..=100).map(|n| format!("{n:03}")).collect();
        assert_eq!(left(&db, &mortal), 60);
        wait(db.close()).unwrap();

        // Expiries are known again after a restart.
        let db = store.open_with(options());
        let puts = wait(join_all((40..120).map(|n| db.put(format!("forever {n:02}"), "v"))));
        evicted_down_to(&db, 100);
        assert_eq!(left(&db, &mortal), 0);
        let refused = puts.into_iter().filter_map(Result::err);
        let refused: Vec<_> = refused.map(|error| (error.kind(), error.to_string())).collect();
        assert_eq!(refused.len(), 20);
        let (kind, text) = &refused[0];
        assert!(*kind == ErrorKind::Full && text.contains("time to live"), "{text}");
        assert!(wait(db.expire("forever 00", HOUR)).unwrap());
        wait(db.put("one more", "v")).unwrap();
        evicted_down_to(&db, 100);
        assert_eq!(get(&db, "forever 00"), None);
        wait(db.close()).unwrap();
    });
}

/// Of five hundred keys and as many after them, chance leaves about e⁻¹ of the first.
#[test]
fn chance_spares_nobody_and_prefers_nobody() {
    let store = Store::sim(seed());
    let db = store.open_with(one(&store, Eviction::Random).entries_max(500));
    churn(&db, "first", 500, &[]);
    churn(&db, "second", 500, &[]);
    let first = contents(&db).into_keys().filter(|key| key.starts_with(b"first")).count();
    assert!((110..260).contains(&first), "{first} of the first 500 are left");
    wait(db.close()).unwrap();
}

/// Breaks if an eviction is not logged, is dropped by a compaction too early, or a hint does not know of it.
#[test]
fn what_was_evicted_stays_gone() {
    for eviction in POLICIES {
        each_disk(|store| {
            let options = |bounded: bool| {
                let options = one(store, eviction).partitions(2).data_file_len_max(8 << 10);
                if bounded { options.entries_max(60) } else { options }
            };
            let mut db = store.open_with(options(false));
            let put = |db: &Db, n: u32| {
                wait(db.put(format!("{n}"), format!("{n}")).ttl((1 + n % 7) * HOUR)).unwrap();
            };
            (0..150).for_each(|n| put(&db, n));
            wait(db.close()).unwrap();
            for round in 0..4 {
                db = store.open_with(options(true));
                (0..80).for_each(|n| put(&db, (round * 37 + n) % 150));
                evicted_down_to(&db, 60);
                let held: BTreeMap<_, _> = contents(&db);
                let counted = accounts(&db);
                assert_eq!(held.len() as u64, counted[0]);
                wait(db.close()).unwrap();
                if round % 2 == 0 {
                    store.spoil_hints();
                }
                db = store.open_with(options(false));
                assert_eq!(contents(&db), held, "{eviction:?}, round {round}");
                assert_eq!(accounts(&db)[..2], counted[..2], "keys and live bytes");
                wait(db.compact()).unwrap();
                assert_eq!(contents(&db), held, "{eviction:?}, round {round}, compacted");
                wait(db.close()).unwrap();
                db = store.open_with(options(false));
                assert_eq!(contents(&db), held, "{eviction:?}, round {round}, opened once more");
                wait(db.close()).unwrap();
            }
        });
    }
}

/// Breaks if a store that was opened with more than it may hold never gets there without somebody writing, or
/// serves nobody until it is.
#[test]
fn a_lowered_bound_is_reached_by_and_by() {
    for eviction in [Eviction::Lru, Eviction::Random] {
        each_disk(|store| {
            let options = || one(store, eviction).partitions(2);
            let db = store.open_with(options());
            let puts = (0..3000).map(|n| db.put(format!("{n}"), "v"));
            assert!(wait(join_all(puts)).iter().all(Result::is_ok));
            wait(db.close()).unwrap();
            let db = store.open_with(options().entries_max(100).bytes_max(50_000));
            wait(db.put("new", "v")).unwrap();
            evicted_down_to(&db, 100);
            let total = db.stats().total();
            assert!((2900..=2901).contains(&total.evicted), "{}", total.evicted);
            assert!(total.live_bytes <= 50_000 && total.keys >= 98, "{total:?}");
            assert_eq!((total.entries_max, total.bytes_max), (100, 50_000));
            wait(db.close()).unwrap();
        });
    }
}

/// Breaks if a victim that is not in memory is waited for, or never evicted.
#[test]
fn victims_may_have_to_be_read_from_the_disk() {
    for eviction in POLICIES {
        let store = Store::sim(seed());
        let db = store.open_with(one(&store, eviction).entries_max(100).data_file_len_max(8 << 10));
        store.disk().would_block(1.0);
        for n in 0..600 {
            // Keys that are longer than what is read first.
            let key = format!("{n}{}", "k".repeat(n % 3 * 1000));
            wait(db.put(key, vec![1; 50]).ttl(HOUR)).unwrap();
        }
        evicted_down_to(&db, 100);
        let total = db.stats().total();
        assert!(total.reads >= 500 && total.evicted == 500, "{total:?}");
        let held = contents(&db);
        wait(db.close()).unwrap();
        let db = store.open_with(one(&store, eviction));
        assert_eq!(contents(&db), held);
        wait(db.close()).unwrap();
    }
}

/// The bound is one for many callers too, but for a little that is on its way.
#[test]
fn many_callers_hardly_go_beyond_the_bound() {
    each_disk(|store| {
        for eviction in POLICIES {
            let db = store.open_with(one(store, eviction).entries_max(160));
            let over = AtomicBool::new(false);
            let (most, settled) = std::thread::scope(|scope| {
                let watching = scope.spawn(|| {
                    let mut most = 0;
                    while !over.load(Ordering::SeqCst) {
                        most = most.max(db.stats().total().keys);
                    }
                    most
                });
                let end = defer(|| over.store(true, Ordering::SeqCst));
                for round in 0..4 {
                    let puts = (0..1000).map(|n| db.put(format!("{round} {n}"), "v").ttl(HOUR));
                    let puts = wait(join_all(puts));
                    let refused = puts.into_iter().filter_map(Result::err);
                    // All that expires may be on its way out, and what is to replace it on its way in.
                    assert!(refused.fold(true, |full, error| full
                        && eviction == Eviction::Ttl
                        && error.kind() == ErrorKind::Full));
                }
                evicted_down_to(&db, 160);
                drop(end);
                (watching.join().unwrap(), db.stats().total().keys)
            });
            // Sixteen more are let in, and a few may be published before what goes for them.
            assert!(most <= 200 && settled >= 100, "{eviction:?}: {most} keys, and then {settled}");
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if one record that cannot be read stops evictions, or the worker tries it for ever.
#[test]
fn a_damaged_record_is_left_and_others_go() {
    for eviction in [Eviction::Lru, Eviction::Ttl] {
        let store = Store::sim(seed());
        let db = store.open_with(one(&store, eviction));
        for n in 0..40 {
            wait(db.put(format!("key {n:02}"), "v").ttl((n + 1) * HOUR)).unwrap();
        }
        wait(db.close()).unwrap();
        // With a hint nobody reads the records themselves until they are asked for.
        wait(store.open_with(one(&store, eviction)).close()).unwrap();
        assert!(store.image().keys().any(|file| is_hint(file)));
        let file = store.data_files().remove(0);
        let mut bytes = store.read(&file);
        let at = bytes.windows(6).position(|window| window == b"key 00").unwrap();
        bytes[at] ^= 1;
        store.write(&file, &bytes);

        let db = store.open_with(one(&store, eviction).entries_max(10));
        evicted_down_to(&db, 10);
        assert_eq!(db.stats().total().evicted, 30);
        assert_eq!(kind(wait(db.get("key 00"))), ErrorKind::Corrupt);
        wait(db.put("key 00", "sound again").ttl(HOUR)).unwrap();
        wait(db.put("one more", "v").ttl(2 * HOUR)).unwrap();
        evicted_down_to(&db, 10);
        wait(db.close()).unwrap();
    }
}

/// Breaks if a store that is closed while it evicts hangs, or loses what it had not evicted yet.
#[test]
fn a_store_can_be_closed_while_it_evicts() {
    let store = Store::sim(seed());
    let db = store.open_with(one(&store, Eviction::Lru));
    wait(join_all((0..2000).map(|n| db.put(format!("{n}"), format!("{n}")))));
    wait(db.close()).unwrap();
    for round in 0..5 {
        let db = store.open_with(one(&store, Eviction::Lru).entries_max(100));
        store.disk().would_block(if round % 2 == 0 { 1.0 } else { 0.0 });
        wait(db.close()).unwrap();
        let db = store.open_with(one(&store, Eviction::None));
        let held = contents(&db);
        assert!(held.len() >= 100 && held.iter().all(|(key, value)| key == value));
        wait(db.close()).unwrap();
    }
}

#[test]
fn bounds_of_zero_are_refused() {
    let store = Store::sim(seed());
    for options in [store.options().entries_max(0), store.options().bytes_max(0)] {
        let error = store.try_open(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("_max is 0"), "{error}");
    }
    // Fewer keys than partitions: one for each.
    let options = store.options().partitions(4).entries_max(2).eviction(Eviction::Random);
    let db = store.open_with(options);
    wait(join_all((0..100).map(|n| db.put(format!("{n}"), "v"))));
    evicted_down_to(&db, 4);
    assert_eq!(db.stats().total().keys, 4);
    wait(db.close()).unwrap();
}

/// Breaks if batches over partitions take room that is somebody else's: each finds the same room while none is
/// published.
#[test]
fn batches_over_partitions_and_other_writers_share_the_room() {
    each_disk(|store| {
        let options = store.options().partitions(3).eviction(Eviction::None);
        let db = store.open_with(options.entries_max(90));
        let tell = |done: Result<()>| match done {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::Full => false,
            Err(error) => panic!("{error}"),
        };
        let writers = (0..40_u32).map(|writer| {
            let db = &db;
            async move {
                let mut expected = Vec::new();
                for n in 0..4 {
                    let keys: Vec<String> =
                        (0..5).map(|key| format!("{writer} {n} {key}")).collect();
                    let put = db.put(format!("{writer} {n}"), "v");
                    let batch =
                        keys.iter().fold(WriteBatch::new(), |batch, key| batch.put(key, "v"));
                    // Half of them want a key that others want too, and wait for it.
                    let batch = if writer % 2 == 0 { batch.put("all", "v") } else { batch };
                    let (batch, put) = futures::join!(db.write(batch), put);
                    if tell(batch.map(drop)) {
                        expected.extend(keys);
                    }
                    if tell(put) {
                        expected.push(format!("{writer} {n}"));
                    }
                    for (partition, stats) in db.stats().partitions.iter().enumerate() {
                        assert!(stats.keys <= 30, "partition {partition} holds {}", stats.keys);
                    }
                }
                expected
            }
        });
        let expected: Vec<String> = wait(join_all(writers)).into_iter().flatten().collect();
        let held = contents(&db);
        assert!(expected.iter().all(|key| held.contains_key(key.as_bytes())));
        let others = held.len() - expected.len();
        assert!(others == usize::from(held.contains_key(&b"all"[..])), "{others} keys of nobody");
        assert!(db.stats().total().writes_full > 0 && held.len() > 60, "{}", held.len());
        // What was refused holds no room: what is deleted makes some.
        for key in expected.iter().take(30) {
            wait(db.del(key)).unwrap();
        }
        let free = db.stats().partitions.iter().map(|stats| 30 - stats.keys).sum::<u64>();
        let puts = wait(join_all((0..300).map(|n| db.put(format!("other {n}"), "v"))));
        assert_eq!(puts.into_iter().flatten().count() as u64, free);
        wait(db.close()).unwrap();
    });
}
