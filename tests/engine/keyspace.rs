//! Keyspaces: a name in MANIFEST, a number in front of every key, and nothing else (N1).
//!
//! Without these a keyspace could see another's keys, be lost by a crash, or cost a file each.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use ringcask::sim::Cut;
use ringcask::{Db, ErrorKind, Keyspace, Ttl};

use crate::support::{EIO, ENOSPC, Store, contents, each_disk, get, wait};

fn keyspace(db: &Db, name: &str) -> Keyspace {
    wait(db.keyspace(name)).unwrap()
}

/// Breaks if any path from a handle to a record leaves the keyspace out.
#[test]
fn the_same_key_in_two_keyspaces_is_two_keys() {
    each_disk(|store| {
        let db = store.open();
        let [a, b] = ["a", "b"].map(|name| keyspace(&db, name));
        let handles: [(&Db, &str); 3] = [(&db, "default"), (&a, "a"), (&b, "b")];
        for (handle, value) in handles {
            wait(handle.put("k", value)).unwrap();
            wait(handle.put(value, "mine")).unwrap();
        }
        let check = |handles: [(&Db, &str); 3]| {
            for (handle, value) in handles {
                let mine = BTreeMap::from([
                    (b"k".to_vec(), value.as_bytes().to_vec()),
                    (value.as_bytes().to_vec(), b"mine".to_vec()),
                ]);
                assert_eq!(contents(handle), mine);
                assert_eq!(wait(handle.count()).unwrap(), 2);
                assert_eq!(get(handle, "k").unwrap(), value);
                assert_eq!(wait(handle.entry("k")).unwrap().unwrap().value_len, value.len() as u64);
            }
        };
        check(handles);
        assert!(!wait(a.put_if_absent("k", "other")).unwrap());
        assert!(wait(a.del("k")).unwrap());
        assert_eq!((get(&a, "k"), get(&b, "k").unwrap()), (None, "b".into()));
        assert_eq!(wait(b.incr("n", 1)).unwrap(), 1);
        assert_eq!(wait(a.incr("n", 5)).unwrap(), 5);
        assert_eq!(wait(db.get("n")).unwrap(), None);
        for handle in [&a, &b] {
            assert!(wait(handle.del("n")).unwrap());
        }
        wait(a.put("k", "a")).unwrap();
        wait(db.close()).unwrap();

        for spoiled in [false, true] {
            if spoiled {
                store.spoil_hints();
            }
            let db = store.open();
            assert_eq!(db.keyspaces(), ["a", "b"]);
            let [a, b] = ["a", "b"].map(|name| keyspace(&db, name));
            check([(&db, "default"), (&a, "a"), (&b, "b")]);
            wait(db.compact()).unwrap();
            check([(&db, "default"), (&a, "a"), (&b, "b")]);
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if a keyspace has a file, or costs opening more than a line of MANIFEST.
#[test]
fn a_thousand_keyspaces_take_no_file_of_their_own() {
    each_disk(|store| {
        let db = store.open_one();
        wait(db.put("k", "v")).unwrap();
        let files = store.image().len();
        let names: Vec<String> = (0..1000).map(|n| format!("tenant {n:04}")).collect();
        let spaces = wait(try_join_all(names.iter().map(|name| db.keyspace(name)))).unwrap();
        wait(try_join_all(spaces.iter().map(|space| space.put("k", space.name().to_owned()))))
            .unwrap();
        assert_eq!(store.image().len(), files);
        assert_eq!(db.keyspaces(), names);
        drop(spaces);
        wait(db.close()).unwrap();

        let db = store.open_one();
        let writes = store.image();
        for name in &names {
            let space = keyspace(&db, name);
            assert_eq!(get(&space, "k").unwrap(), name.as_str());
        }
        assert_eq!(store.image()["MANIFEST"], writes["MANIFEST"], "opening one writes nothing");
        wait(db.close()).unwrap();
    });
}

#[test]
fn names_are_any_text_of_1_to_255_bytes() {
    let store = Store::sim(0);
    let db = store.open();
    let long = "ü".repeat(127) + "x";
    for name in ["k", "\n[[keyspaces]]\u{0}", "ключ", long.as_str()] {
        assert_eq!(keyspace(&db, name).name(), name);
    }
    for name in [String::new(), "n".repeat(256)] {
        let error = wait(db.keyspace(&name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("1 to 255"), "{error}");
    }
    let mut names = db.keyspaces();
    wait(db.close()).unwrap();
    let db = store.open();
    assert_eq!(db.keyspaces(), names);
    names.sort();
    assert_eq!(db.keyspaces(), names);
}

/// Breaks if a keyspace forgets its time to live, or another one's reaches it.
#[test]
fn each_keyspace_has_its_own_default_ttl() {
    let store = Store::sim(0);
    let minute = Duration::from_secs(60);
    let is_about = |ttl: Ttl, expected: Duration| matches!(ttl, Ttl::Left(left) if left <= expected && left > expected / 2);
    let ttl_after_put = |handle: &Db| {
        wait(handle.put("k", "v")).unwrap();
        wait(handle.ttl("k")).unwrap()
    };
    let check = |db: &Db| {
        let [told, silent, forever] = ["told", "silent", "forever"].map(|name| keyspace(db, name));
        assert!(is_about(ttl_after_put(&told), minute));
        assert!(is_about(ttl_after_put(&silent), 10 * minute));
        assert_eq!(ttl_after_put(&forever), Ttl::Forever);
        assert!(is_about(ttl_after_put(db), 10 * minute));
        wait(told.put_if_absent("new", "v")).unwrap();
        assert!(is_about(wait(told.ttl("new")).unwrap(), minute));
    };
    let db = store.open_with(store.options().default_ttl(10 * minute));
    wait(db.keyspace("told").default_ttl(minute)).unwrap();
    wait(db.keyspace("silent")).unwrap();
    wait(db.keyspace("forever").default_ttl(None)).unwrap();
    check(&db);
    let error = wait(db.keyspace("told").default_ttl(Duration::ZERO)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    wait(db.close()).unwrap();

    let db = store.open_with(store.options().default_ttl(10 * minute));
    check(&db);
    let before = keyspace(&db, "told");
    let after = wait(db.keyspace("told").default_ttl(2 * minute)).unwrap();
    assert!(is_about(ttl_after_put(&before), minute), "a handle keeps the one it was opened with");
    assert!(is_about(ttl_after_put(&after), 2 * minute));
    wait(db.close()).unwrap();
    let db = store.open();
    assert!(is_about(ttl_after_put(&keyspace(&db, "told")), 2 * minute));
    assert_eq!(ttl_after_put(&keyspace(&db, "silent")), Ttl::Forever);
}

/// KS1: breaks if a keyspace can be used before its name is durable, or a crash leaves half of a MANIFEST.
#[test]
fn a_power_cut_leaves_a_keyspace_whole_or_not_at_all() {
    let store = Store::sim(0);
    let db = store.open_one();
    let first = store.disk().ops();
    let space = keyspace(&db, "s");
    let created = store.disk().ops();
    wait(space.put("k", "v")).unwrap();
    let last = store.disk().ops();
    wait(db.close()).unwrap();
    assert!(created > first);
    for op in first..=last {
        let store = Store::sim(0);
        let db = store.open_one();
        store.disk().crash_at(op);
        let opened = wait(db.keyspace("s"));
        let put = opened.as_ref().is_ok_and(|space| wait(space.put("k", "v")).is_ok());
        for cut in [Cut::DropUnsynced, Cut::KeepAll] {
            let after = store.on(store.disk().power_cut(cut));
            let db = after.open_one();
            let is_there = db.keyspaces() == ["s"];
            assert!(is_there || opened.is_err() || op <= created, "{op}: the name is lost");
            let value = get(&keyspace(&db, "s"), "k");
            assert!(value.is_some() || !put, "{op}: the value is lost");
            assert_eq!(get(&db, "k"), None);
            wait(db.close()).unwrap();
        }
    }
}

/// KS3: breaks if a failed replacement is taken for done, or blocks those that come after it.
#[test]
fn a_manifest_that_cannot_be_replaced_changes_nothing() {
    for errno in [EIO, ENOSPC] {
        for op in 0..6 {
            let store = Store::sim(0);
            let db = store.open_one();
            let kept = keyspace(&db, "kept");
            wait(kept.put("k", "v")).unwrap();
            store.disk().fail_op(store.disk().ops() + op, errno, false);
            let tried = wait(db.keyspace("tried"));
            // One that is still to come is not meant for what comes now.
            store.disk().clear_faults();
            match &tried {
                Ok(space) => wait(space.put("k", "v")).unwrap(),
                Err(error) => {
                    let kind = error.kind();
                    let is_known = kind != ErrorKind::Poisoned;
                    assert!(is_known == wait(db.keyspace("tried")).is_ok(), "{op}: {error}");
                }
            }
            assert_eq!(get(&kept, "k").unwrap(), "v");
            wait(kept.put("k", "w")).unwrap();
            wait(db.close()).unwrap();
            let db = store.open_one();
            assert_eq!(get(&keyspace(&db, "kept"), "k").unwrap(), "w");
            if tried.is_ok() {
                assert_eq!(get(&keyspace(&db, "tried"), "k").unwrap(), "v");
            }
            wait(db.close()).unwrap();
        }
    }
}

/// Breaks if two who create the same keyspace at once get two, or a change outlives the store's lock.
#[test]
fn many_at_once_open_the_same_keyspaces() {
    each_disk(|store| {
        let db = store.open();
        let opens = (0..200).map(|n| db.keyspace(format!("s{}", n % 7)));
        let spaces = wait(try_join_all(opens)).unwrap();
        for (n, space) in (0..).zip(&spaces) {
            wait(space.incr("opened", n)).unwrap();
        }
        for (n, space) in spaces.iter().take(7).enumerate() {
            let sum: usize = (0..200).filter(|other| other % 7 == n).sum();
            assert_eq!(get(space, "opened").unwrap(), sum.to_string());
        }
        assert_eq!(db.keyspaces().len(), 7);

        // Some are created, some refused, and the store is closed when it says so.
        let late = join_all((0..50).map(|n| db.keyspace(format!("late {n}"))));
        let (late, closed) = wait(futures::future::join(late, db.close()));
        closed.unwrap();
        let created = late.iter().filter(|opened| opened.is_ok()).count();
        let refused = late.iter().filter_map(|opened| opened.as_ref().err());
        assert!(refused.into_iter().all(ringcask::Error::is_closed));
        let db = store.open();
        assert_eq!(db.keyspaces().len(), 7 + created);
        wait(db.close()).unwrap();
        assert!(wait(db.keyspace("s1")).unwrap_err().is_closed());
        assert!(wait(db.keyspace("new")).unwrap_err().is_closed());
    });
}

/// KS2: breaks if a MANIFEST that was put back as it was earlier gives an id to a second keyspace.
#[test]
fn an_id_that_a_record_has_is_not_given_again() {
    let store = Store::sim(0);
    let db = store.open_one();
    let before = store.read("MANIFEST");
    wait(keyspace(&db, "first").put("k", "of the first")).unwrap();
    wait(db.close()).unwrap();
    store.write("MANIFEST", &before);
    let db = store.open_one();
    assert_eq!(db.keyspaces(), [""; 0]);
    assert_eq!(get(&keyspace(&db, "second"), "k"), None);
}

/// Breaks if the data of a keyspace cannot be reached once its name is lost.
#[test]
fn repair_names_keyspaces_anew() {
    let store = Store::sim(0);
    let db = store.open();
    for name in ["one", "two", "three"] {
        let space = keyspace(&db, name);
        if name != "two" {
            wait(space.put("k", name)).unwrap();
        }
    }
    wait(db.close()).unwrap();
    store.remove("MANIFEST");
    let report = wait(store.options().repair(store.path())).unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("recovered-1")));
    let db = store.open();
    assert_eq!(db.keyspaces(), ["recovered-1", "recovered-3"]);
    assert_eq!(get(&keyspace(&db, "recovered-1"), "k").unwrap(), "one");
    assert_eq!(get(&keyspace(&db, "recovered-3"), "k").unwrap(), "three");
    assert_eq!(get(&keyspace(&db, "four"), "k"), None);
}
