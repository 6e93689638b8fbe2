//! What goes in comes out, at every length where something in the engine changes.

use bytes::Bytes;
use ringcask::ErrorKind;

use crate::support::{bytes_of, each_disk, get, seed, wait};

const LENS: [usize; 17] = [
    0,
    1,
    2,
    1023,
    1024,
    1025,
    4095,
    4096,
    4097,
    (64 << 10) - 1,
    64 << 10,
    (64 << 10) + 1,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 1,
    (4 << 20) + 1,
    16 << 20,
];

/// Breaks if a length is cut, rounded, or lost at a boundary of buffers, groups or read paths.
#[test]
fn values_of_every_length_come_back_now_and_after_reopen() {
    let base = bytes_of(&mut fastrand::Rng::with_seed(seed()), 16 << 20);
    each_disk(|store| {
        let db = store.open();
        for len in LENS {
            // Owned and borrowed take different ways through the engine.
            wait(db.put(format!("owned {len}"), base[..len].to_vec())).unwrap();
            wait(db.put(format!("borrowed {len}"), &base[..len])).unwrap();
        }
        for reopened in [false, true] {
            let db = if reopened {
                wait(db.close()).unwrap();
                store.open()
            } else {
                db.clone()
            };
            for len in LENS {
                for way in ["owned", "borrowed"] {
                    let value = get(&db, format!("{way} {len}")).unwrap();
                    assert!(value == base[..len], "{way} {len}, reopened: {reopened}");
                }
            }
            if reopened {
                wait(db.close()).unwrap();
            }
        }
    });
}

/// Breaks if a key is treated as text, or its length loses a bit.
#[test]
fn keys_of_every_length_and_byte_come_back() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    keys.extend([2, 255, 256, 4096, 65_534, 65_535].map(|len| bytes_of(&mut random, len)));
    keys.push((0..=255).collect());
    keys.push(vec![0; 65_535]);
    each_disk(|store| {
        let db = store.open();
        let puts = keys.iter().map(|key| db.put(key, key));
        wait(futures::future::try_join_all(puts)).unwrap();
        let check = |db: &ringcask::Db| {
            for key in &keys {
                assert_eq!(get(db, key).as_deref(), Some(&key[..]), "a key of {} bytes", key.len());
            }
            assert_eq!(db.stats().total().keys, keys.len() as u64);
        };
        check(&db);
        wait(db.close()).unwrap();
        let db = store.open();
        check(&db);
        for key in &keys {
            assert!(wait(db.del(key)).unwrap());
        }
        wait(db.close()).unwrap();
        let db = store.open();
        assert!(keys.iter().all(|key| get(&db, key).is_none()));
        wait(db.close()).unwrap();
    });
}

/// Breaks callers if one of the types that can be a value goes away, or is stored differently.
#[test]
fn every_type_of_value_is_stored_as_its_bytes() {
    each_disk(|store| {
        let db = store.open();
        let text = String::from("value");
        let bytes = Bytes::from_static(b"value");
        let vec = b"value".to_vec();
        wait(db.put("&str", "value")).unwrap();
        wait(db.put("&String", &text)).unwrap();
        wait(db.put("&[u8]", &vec[..])).unwrap();
        wait(db.put("&Vec", &vec)).unwrap();
        wait(db.put("&Bytes", &bytes)).unwrap();
        wait(db.put("[u8; N]", *b"value")).unwrap();
        wait(db.put("&[u8; N]", b"value")).unwrap();
        wait(db.put("Vec", vec.clone())).unwrap();
        wait(db.put("String", text.clone())).unwrap();
        wait(db.put("Bytes", bytes.clone())).unwrap();
        wait(db.put("Box<[u8]>", vec.clone().into_boxed_slice())).unwrap();
        // Keys likewise.
        wait(db.put(vec.clone(), "key")).unwrap();
        wait(db.put(bytes.clone(), "key")).unwrap();
        wait(db.put(b"other", "key")).unwrap();
        for key in [
            "&str",
            "&String",
            "&[u8]",
            "&Vec",
            "&Bytes",
            "[u8; N]",
            "&[u8; N]",
            "Vec",
            "String",
            "Bytes",
            "Box<[u8]>",
        ] {
            assert_eq!(get(&db, key).unwrap(), "value", "{key}");
        }
        assert_eq!(get(&db, "value").unwrap(), "key");
        wait(db.close()).unwrap();
    });
}

/// Breaks if a key or value out of bounds is cut or stored instead of refused.
#[test]
fn what_is_out_of_bounds_is_refused_and_nothing_written() {
    each_disk(|store| {
        let db = store.open_with(store.options().key_len_max(10).value_len_max(100));
        let log_bytes = db.stats().total().log_bytes;
        let refused = [
            wait(db.put("", "v")).unwrap_err(),
            wait(db.put("elevenbytes", "v")).unwrap_err(),
            wait(db.put("k", vec![0; 101])).unwrap_err(),
            wait(db.get("")).unwrap_err(),
            wait(db.get("elevenbytes")).unwrap_err(),
            wait(db.del("")).unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        assert_eq!(db.stats().total().log_bytes, log_bytes);
        wait(db.put("tenbytes..", vec![0; 100])).unwrap();
        wait(db.close()).unwrap();
        let db = store.open();
        let long = vec![0; 65_536];
        assert_eq!(wait(db.put(&long, "v")).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(get(&db, "tenbytes..").unwrap().len(), 100);
        wait(db.close()).unwrap();
    });
}
