//! Random operations, and an ordered map that does the same.

use std::collections::BTreeMap;
use std::time::Duration;

use ringcask::{Db, Durability};

use crate::support::{Store, bytes_of, contents, get, seed, wait};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn random_options(store: &Store, random: &mut fastrand::Rng) -> Db {
    let durabilities =
        [Durability::Sync, Durability::Buffered, Durability::Interval(Duration::from_millis(2))];
    let options = store
        .options()
        .workers(random.usize(1..4))
        .data_file_len_max(1 << random.u32(12..20))
        .prewrite(random.bool())
        .mailbox_requests_max(random.usize(1..50))
        .mailbox_bytes_max(random.usize(1..50_000))
        .durability(durabilities[random.usize(..3)]);
    store.open_with(options)
}

fn step(db: &Db, model: &mut Model, random: &mut fastrand::Rng) {
    let key = format!("key {}", random.u32(..60)).into_bytes();
    match random.u8(..100) {
        0..45 => {
            let len = match random.u8(..20) {
                0 => random.usize(..70_000),
                1..5 => random.usize(..5000),
                _ => random.usize(..300),
            };
            let value = bytes_of(random, len);
            let put = db.put(&key, &value);
            let put = if random.bool() { put.durability(Durability::Buffered) } else { put };
            wait(put).unwrap();
            model.insert(key, value);
        }
        45..60 => assert_eq!(wait(db.del(&key)).unwrap(), model.remove(&key).is_some()),
        60..80 => assert_eq!(get(db, &key).as_deref(), model.get(&key).map(Vec::as_slice)),
        80..85 => assert_eq!(wait(db.contains_key(&key)).unwrap(), model.contains_key(&key)),
        85..92 => {
            let keys: Vec<_> = (0..random.u32(..10)).map(|n| format!("key {}", n * 7)).collect();
            let found = wait(db.get_many(&keys)).unwrap();
            for (key, found) in keys.iter().zip(found) {
                assert_eq!(found.as_deref(), model.get(key.as_bytes()).map(Vec::as_slice));
            }
        }
        92..97 => wait(db.sync()).unwrap(),
        _ => assert_eq!(&contents(db), model),
    }
}

/// Whatever comes after whatever: the store is the map, over closing, dropping and being killed.
#[test]
fn the_store_is_an_ordered_map() {
    let seed = seed();
    let random = &mut fastrand::Rng::with_seed(seed);
    for run in 0..12 {
        let mut store = match run % 6 {
            0 => Store::uring(),
            1 => Store::blocking(),
            _ => Store::sim(random.u64(..)),
        };
        let mut model = Model::new();
        wait(store.open_with(store.options().partitions(random.u32(1..5))).close()).unwrap();
        for _life in 0..8 {
            if store.is_sim() && run > 6 {
                store.disk().short_transfers(0.2);
                store.disk().would_block(0.3);
            }
            let db = random_options(&store, random);
            assert_eq!(contents(&db), model, "run {run}");
            for _ in 0..random.usize(..80) {
                step(&db, &mut model, random);
            }
            assert_eq!(db.stats().total().keys as usize, model.len());
            match random.u8(..3) {
                0 => wait(db.close()).unwrap(),
                1 => drop(db),
                _ if store.is_sim() => {
                    // Whatever was acknowledged is in the page cache.
                    store = store.on(store.disk().kill());
                    drop(db);
                }
                _ => wait(db.close()).unwrap(),
            }
        }
    }
}
