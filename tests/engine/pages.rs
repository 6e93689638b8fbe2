//! Pages of a scan: nothing is kept between two of them but a line of text.

use std::collections::BTreeMap;

use futures::future::join_all;
use ringcask::{Compaction, Cursor, Db, Durability, ErrorKind, Options, Page, Scan};

use crate::support::{Store, bytes_of, each_disk, seed, wait};

fn options(store: &Store) -> Options {
    let options = store.options().partitions(2).data_file_len_max(4096);
    options.durability(Durability::Buffered).compaction(Compaction::off())
}

/// All pages, each cursor as text meanwhile; `between` is called after each.
fn pages(
    mut scan: impl FnMut() -> Scan,
    mut between: impl FnMut(),
) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let (mut pages, mut cursor) = (Vec::new(), None::<Cursor>);
    loop {
        let Page { entries, next, .. } = wait(scan().page(cursor.as_ref())).unwrap();
        let owned = entries.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
        pages.push(owned.collect());
        let Some(next) = next else { return pages };
        cursor = Some(next.to_string().parse().unwrap());
        between();
    }
}

/// Breaks if a page begins at the key that the one before ended with, or behind the one after it.
#[test]
fn pages_together_are_the_scan() {
    let seed = seed();
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed);
        let db = store.open_with(options(store));
        let mut expected = BTreeMap::new();
        for n in 0..300 {
            let (key, value) = (format!("{:04}", n * 7 % 1000).into_bytes(), bytes_of(random, 50));
            wait(db.put(&key, &value)).unwrap();
            expected.insert(key, value);
        }
        for len in [1, 7, 100, 299, 300, 301, usize::MAX] {
            for reverse in [false, true] {
                let scan = || {
                    let scan = db.scan().limit(len);
                    if reverse { scan.reverse() } else { scan }
                };
                let found = pages(scan, || ());
                assert!(found.iter().rev().skip(1).all(|page| page.len() == len));
                let mut found = found.concat();
                if reverse {
                    found.reverse();
                }
                assert!(found.into_iter().eq(expected.clone()), "pages of {len}");
            }
        }
        let mut cursor = None;
        let mut keys = Vec::new();
        loop {
            let keys_of = db.scan().range("0100".."0500").keys().limit(9);
            let page = wait(keys_of.page(cursor.as_ref())).unwrap();
            keys.extend(page.entries);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let range = expected.range(b"0100".to_vec()..b"0500".to_vec());
        assert!(keys.iter().eq(range.map(|(key, _)| key)));
        let even = || db.scan().filter(|_, value| value[0] % 2 == 0).limit(4);
        let even_expected = expected.values().filter(|value| value[0] % 2 == 0).count();
        assert_eq!(pages(even, || ()).concat().len(), even_expected);
        wait(db.close()).unwrap();
    });
}

/// What a cursor is for. Breaks if anything but the key that it names decides where to go on.
#[test]
fn a_cursor_outlives_compaction_and_restart() {
    let seed = seed();
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed);
        let stays: Vec<String> = (0..200).map(|n| format!("stays {n:03}")).collect();
        let write = |db: &Db, random: &mut fastrand::Rng| {
            let puts = (0..60).map(|_| {
                let key = &stays[random.usize(..stays.len())];
                (key.clone(), format!("goes {}", random.u32(..300)), vec![random.u8(..); 60])
            });
            for (stays, goes, value) in puts.collect::<Vec<_>>() {
                wait(db.put(stays, value)).unwrap();
                wait(db.put(&goes, "v")).unwrap();
                if random.bool() {
                    wait(db.del(&goes)).unwrap();
                }
            }
        };
        for reverse in [false, true] {
            let mut db = store.open_with(options(store));
            let puts = stays.iter().map(|key| db.put(key, vec![0; 60]));
            assert!(wait(join_all(puts)).iter().all(Result::is_ok));
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let scan = db.scan().limit(23);
                let scan = if reverse { scan.reverse() } else { scan };
                let page = wait(scan.page(cursor.as_ref())).unwrap();
                let keys = page.entries.iter().map(|(key, _)| key.to_vec());
                seen.extend(keys.filter(|key| key.starts_with(b"stays")));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
                write(&db, random);
                if random.bool() {
                    wait(db.compact()).unwrap();
                }
                if random.u8(..3) == 0 {
                    wait(db.close()).unwrap();
                    db = store.open_with(options(store));
                }
            }
            if reverse {
                seen.reverse();
            }
            assert!(seen.iter().eq(stays.iter().map(String::as_bytes)), "each exactly once");
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if one page of large values takes as much memory as there are.
#[test]
fn a_page_of_large_values_is_short() {
    let store = Store::sim(0);
    let db = store.open_one();
    for n in 0..8_u8 {
        wait(db.put(format!("{n}"), vec![n; 5 << 20])).unwrap();
    }
    let found = pages(|| db.scan(), || ());
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 0]);
    assert!(found.concat().iter().zip(0..).all(|((_, value), n)| value[0] == n));
    let (first, second) = wait(async {
        let first = db.scan().limit(0).page(None).await.unwrap();
        let cursor = db.scan().keys().limit(1).page(None).await.unwrap().next;
        (first, db.scan().limit(0).page(cursor.as_ref()).await.unwrap().next == cursor)
    });
    assert!(
        first.entries.is_empty() && first.next.is_none() && second,
        "a page of none goes nowhere"
    );
    wait(db.close()).unwrap();
    let error = wait(db.scan().page(None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}
