//! Round trips through the whole engine, from one caller: what a single operation costs.
//!
//! `cargo bench --bench db`; `benches/micro.rs` has the parts. Throughput with many callers is what `ringcask bench` measures.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::TryStreamExt;
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

/// A message to the worker and its answer, and nothing else: nothing is to be synced.
fn mailbox(c: &mut Criterion) {
    let (_dir, db) = store(Durability::Buffered);
    c.bench_function("mailbox, there and back", |b| b.iter(|| block_on(db.sync())));
}

fn fill(db: &Db) {
    let puts = (0..KEYS).map(|n| db.put(key(n.wrapping_mul(2_654_435_761)), [7; 100]));
    block_on(futures::future::try_join_all(puts)).expect("puts succeed");
}

fn open(c: &mut Criterion) {
    let (dir, db) = store(Durability::Buffered);
    fill(&db);
    block_on(db.close()).expect("the store closes");
    let mut group = c.benchmark_group("open");
    group.sample_size(20).throughput(Throughput::Elements(KEYS.into()));
    group.bench_function("from hints", |b| {
        b.iter(|| {
            let db = block_on(Options::new().open(dir.path())).expect("a store opens");
            block_on(db.close()).expect("the store closes");
        });
    });
}

fn scan(c: &mut Criterion) {
    // Several files in each partition, so that there is something to merge.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new().partitions(2).durability(Durability::Buffered);
    let db = block_on(options.data_file_len_max(2 << 20).open(dir.path())).expect("a store opens");
    fill(&db);
    block_on(db.compact()).expect("what was written is sealed, and has hints");
    let mut random = fastrand::Rng::with_seed(3);
    let mut group = c.benchmark_group("scan");
    group.sample_size(20);
    for limit in [1_usize, 100] {
        group.throughput(Throughput::Elements(limit as u64));
        group.bench_function(BenchmarkId::new("from a random key", limit), |b| {
            b.iter(|| {
                let from = key(random.u32(..));
                let scan = db.scan().range(from..).limit(limit);
                block_on(scan.try_fold(0, |count, _| async move { Ok(count + 1) }))
            });
        });
    }
    group.throughput(Throughput::Elements(KEYS.into()));
    group.bench_function("all keys", |b| b.iter(|| block_on(db.count())));
    group.bench_function("all entries", |b| {
        b.iter(|| block_on(db.scan().try_fold(0, |count, _| async move { Ok(count + 1) })));
    });
}

criterion_group!(benches, get, put, mailbox, open, scan);
criterion_main!(benches);
