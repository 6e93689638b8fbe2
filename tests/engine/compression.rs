//! Values are stored compressed, and nobody who reads them can tell.

use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use ringcask::{Compression, Db, Durability, ErrorKind, Expected, Options, Swap, decoders};

use crate::support::{Store, bytes_of, contents, each_disk, get, seed, wait};

const SETTINGS: [Compression; 3] =
    [Compression::Lz4, Compression::Zstd { level: 3 }, Compression::None];

/// Around the threshold, what is copied, what is read without a hop, and what is a group of its own.
const LENS: [usize; 12] = [
    0,
    255,
    256,
    257,
    4096,
    4097,
    64 << 10,
    (64 << 10) + 1,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 1,
    5 << 20,
];

fn text(len: usize) -> Vec<u8> {
    b"{\"id\":17,\"name\":\"Ada Lovelace\"},".iter().copied().cycle().take(len).collect()
}

fn options(store: &Store, compression: Compression) -> Options {
    store.options().partitions(2).compression(compression)
}

/// Breaks if a value is handed out as it is stored by any way to read it, from memory, from the disk, or after
/// a reopen with another setting.
#[test]
fn values_come_back_by_every_way_to_read_them() {
    let noise = bytes_of(&mut fastrand::Rng::with_seed(seed()), 5 << 20);
    each_disk(|store| {
        for (index, setting) in SETTINGS.into_iter().enumerate() {
            let db = store.open_with(options(store, setting));
            for len in LENS {
                let owned = db.put(format!("{index} owned {len}"), text(len));
                wait(owned.durability(Durability::Buffered)).unwrap();
                let borrowed = text(len);
                let borrowed = db.put(format!("{index} borrowed {len}"), &borrowed);
                wait(borrowed.durability(Durability::Buffered)).unwrap();
                let noise = db.put(format!("{index} noise {len}"), &noise[..len]);
                wait(noise.durability(Durability::Buffered)).unwrap();
            }
            wait(db.close()).unwrap();
        }
        let check = |db: &Db| {
            for index in 0..SETTINGS.len() {
                for len in LENS {
                    for (kind, value) in [
                        ("owned", &text(len)),
                        ("borrowed", &text(len)),
                        ("noise", &noise[..len].to_vec()),
                    ] {
                        let key = format!("{index} {kind} {len}");
                        assert!(get(db, &key).unwrap() == value, "{key}");
                        let info = wait(db.entry(&key)).unwrap().unwrap();
                        assert_eq!(info.value_len, len as u64, "{key}");
                        assert!(wait(db.contains_key(&key)).unwrap());
                        let many = wait(db.get_many([&key, "none"])).unwrap();
                        assert!(many[0].as_ref().unwrap() == value && many[1].is_none(), "{key}");
                    }
                }
            }
            let found = contents(db);
            assert_eq!(found.len(), SETTINGS.len() * LENS.len() * 3);
            for (key, value) in found {
                let is_noise = key.windows(5).any(|part| part == b"noise");
                let expected = if is_noise { &noise[..value.len()] } else { &text(value.len()) };
                assert!(value == expected, "{}", String::from_utf8_lossy(&key));
            }
        };
        for setting in SETTINGS {
            let db = store.open_with(options(store, setting));
            check(&db);
            if store.is_sim() {
                // Every read is sent to the worker.
                store.disk().would_block(1.0);
                check(&db);
                store.disk().would_block(0.0);
            }
            wait(db.compact()).unwrap();
            check(&db);
            wait(db.close()).unwrap();
        }
        store.spoil_hints();
        let db = store.open();
        check(&db);
        wait(db.close()).unwrap();
    });
}

/// Breaks if values are stored as they are, if what does not get shorter is stored compressed, or if the
/// threshold is not heeded.
#[test]
fn only_what_gets_shorter_is_stored_compressed() {
    let noise = bytes_of(&mut fastrand::Rng::with_seed(seed()), 10_000);
    let stored = |db: &Db, value: &[u8]| {
        let before = db.stats().total();
        wait(db.put("key", value)).unwrap();
        let after = db.stats().total();
        assert_eq!(after.put_value_bytes - before.put_value_bytes, value.len() as u64);
        (after.put_stored_bytes - before.put_stored_bytes) as usize
    };
    each_disk(|store| {
        for setting in SETTINGS {
            let is_on = setting != Compression::None;
            let db = store.open_with(options(store, setting));
            assert_eq!(stored(&db, &text(10_000)) < 500, is_on);
            assert_eq!(stored(&db, &noise), noise.len());
            assert_eq!(stored(&db, &text(255)), 255);
            assert_eq!(stored(&db, &text(256)) < 200, is_on);
            wait(db.close()).unwrap();
            let db = store.open_with(options(store, setting).compression_len_min(9999));
            assert_eq!(stored(&db, &text(9998)), 9998);
            assert_eq!(stored(&db, &text(9999)) < 500, is_on);
            let written = db.stats().total().commit_bytes;
            assert_eq!(written < 12_000, is_on, "{written} bytes");
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if an operation that looks before it writes sees a value as it is stored: in the open group, in
/// the page cache, or read from the disk.
#[test]
fn operations_that_look_see_the_callers_value() {
    each_disk(|store| {
        for setting in SETTINGS {
            let db = store.open_with(options(store, setting));
            // The last four of each are decided from what the one before has staged.
            let (one, two) = (text(3000), text(4000));
            for cold in [false, store.is_sim()] {
                if cold {
                    store.disk().would_block(1.0);
                }
                wait(db.put("key", &one)).unwrap();
                let swap = wait(db.compare_and_swap("key", &two[..], "never")).unwrap();
                assert_eq!(swap, Swap::Mismatch(Some(Bytes::from(one.clone()))));
                assert!(wait(db.compare_and_swap("key", &one[..], two.clone())).unwrap().is_done());
                assert_eq!(wait(db.get_and_put("key", &one)).unwrap().unwrap(), two);
                let len = wait(db.append("key", &two)).unwrap();
                assert_eq!(len as usize, one.len() + two.len());
                let both = [&one[..], &two[..]].concat();
                assert_eq!(get(&db, "key").unwrap(), both);
                let error = wait(db.incr("key", 1)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                let swapped = wait(db.compare_and_swap("key", Expected::Seqno(0), "never"));
                assert_eq!(swapped.unwrap(), Swap::Mismatch(Some(Bytes::from(both.clone()))));
                assert_eq!(wait(db.get_and_del("key")).unwrap().unwrap(), both);
                let appends = (0..20).map(|_| db.append("key", &one));
                let lens = wait(try_join_all(appends)).unwrap();
                assert_eq!(lens.last(), Some(&(20 * one.len() as u64)));
                assert_eq!(get(&db, "key").unwrap(), one.repeat(20));
                if cold {
                    store.disk().would_block(0.0);
                }
            }
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if a change of the expiry decodes a value, encodes it another way, or loses how it is encoded.
#[test]
fn expire_and_persist_keep_what_is_stored() {
    each_disk(|store| {
        let value = text(100_000);
        let db = store.open_with(options(store, Compression::Zstd { level: 9 }));
        wait(db.put("key", &value)).unwrap();
        let stored = db.stats().total().put_stored_bytes;
        assert!(stored < 1000);
        wait(db.close()).unwrap();
        for setting in [Compression::None, Compression::Lz4] {
            let db = store.open_with(options(store, setting));
            for is_staged in [false, true] {
                let before = db.stats().total();
                let expire = db.expire("key", Duration::from_secs(3600));
                if is_staged {
                    let (expired, persisted) =
                        wait(futures::future::join(expire, db.persist("key")));
                    assert!(expired.unwrap() && persisted.unwrap());
                } else {
                    assert!(wait(expire).unwrap());
                    assert!(wait(db.persist("key")).unwrap());
                }
                let after = db.stats().total();
                assert_eq!(after.put_stored_bytes - before.put_stored_bytes, 2 * stored);
                assert_eq!(after.put_value_bytes - before.put_value_bytes, 200_000);
                assert_eq!(get(&db, "key").unwrap(), value);
            }
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if a value slips over the limit because it is short once compressed.
#[test]
fn limits_are_about_the_callers_value() {
    each_disk(|store| {
        for setting in SETTINGS {
            let db = store.open_with(options(store, setting).value_len_max(1000));
            let refused = wait(db.put("key", text(1001))).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
            wait(db.put("key", text(1000))).unwrap();
            let refused = wait(db.append("key", "x")).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
            assert_eq!(get(&db, "key").unwrap(), text(1000));
            wait(db.close()).unwrap();
        }
    });
    let store = Store::sim(0);
    for level in [-8, 20] {
        let refused = store.try_open(options(&store, Compression::Zstd { level })).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    }
    assert!(store.list("").is_empty(), "refused before anything was made");
}

/// Breaks if the length that a compressed record claims is believed: it is in no relation to the bytes that
/// are there, and its checksums are good.
#[test]
fn a_forged_length_is_damage_and_takes_no_memory() {
    for setting in [Compression::Lz4, Compression::Zstd { level: 3 }] {
        let store = Store::sim(0);
        let db = store.open_with(options(&store, setting).partitions(1));
        wait(db.put("before", "it")).unwrap();
        wait(db.put("key", text(5000))).unwrap();
        wait(db.put("behind", "it")).unwrap();
        // Killed, so that no digest covers the file.
        let killed = store.on(store.disk().kill());
        wait(db.close()).unwrap();
        let file = &killed.data_files()[0];
        let bytes = killed.read(file);
        let claimed = 5000_u64.to_le_bytes();
        let at = bytes.windows(8).position(|field| field == claimed).unwrap();
        for forged in [0, 4999, 5001, 1 << 20, 1 << 30, (1 << 30) + 1, 1 << 40, u64::MAX] {
            let changed = killed.on(killed.disk().kill());
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(forged));
            decoders::forge_data_file(&mut bytes);
            changed.write(file, &bytes);
            let db = changed.open_with(options(&changed, Compression::None).partitions(1));
            assert_eq!(get(&db, "before").unwrap(), "it");
            assert_eq!(get(&db, "behind").unwrap(), "it");
            let look = wait(db.get("key")).unwrap_err();
            let swap = wait(db.get_and_put("key", "new")).unwrap_err();
            for error in [look, swap] {
                assert!(error.is_corrupt(), "{forged}: {error}");
                assert!(error.location().unwrap().0.ends_with(file), "{error}");
            }
            // What does not look at the value can go on, and repair the key by that.
            assert!(wait(db.expire("key", Duration::from_secs(60))).unwrap());
            wait(db.put("key", "new")).unwrap();
            assert_eq!(get(&db, "key").unwrap(), "new");
            wait(db.close()).unwrap();
        }
    }
}
