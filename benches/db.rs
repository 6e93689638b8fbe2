//! Round trips through the whole engine, from one caller: what a single operation costs.
//!
//! `cargo bench --bench db`. Throughput with many callers is what `ringcask bench` measures.

use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use ringcask::{Db, Durability, Options};

const KEYS: u32 = 100_000;

fn store(durability: Durability) -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new().partitions(2).durability(durability);
    let db = block_on(options.open(dir.path())).expect("a store opens");
    (dir, db)
}

fn key(n: u32) -> [u8; 20] {
    let mut key = *b"key:................";
    key[4..8].copy_from_slice(&n.to_le_bytes());
    key
}

fn get(c: &mut Criterion) {
    let (_dir, db) = store(Durability::Buffered);
    let puts = (0..KEYS).map(|n| db.put(key(n), [7; 100]));
    block_on(futures::future::try_join_all(puts)).expect("puts succeed");
    let mut random = fastrand::Rng::with_seed(1);
    c.bench_function("get, in memory", |b| {
        b.iter(|| block_on(db.get(key(random.u32(..KEYS)))));
    });
    c.bench_function("get, missing", |b| {
        b.iter(|| block_on(db.get(key(random.u32(KEYS..)))));
    });
}

fn put(c: &mut Criterion) {
    for (name, durability) in [("buffered", Durability::Buffered), ("sync", Durability::Sync)] {
        let (_dir, db) = store(durability);
        let mut random = fastrand::Rng::with_seed(2);
        c.bench_function(&format!("put, {name}, one caller"), |b| {
            b.iter(|| block_on(db.put(key(random.u32(..KEYS)), [7; 100]).into_future()));
        });
    }
}

criterion_group!(benches, get, put);
criterion_main!(benches);
