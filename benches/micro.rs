//! The parts of a put, of a get and of opening that are not the disk's: record codec, routing, keydir.
//!
//! `cargo bench --features sim --bench micro`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringcask::micro::{Index, Router, decode, encode};

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:016x}").into_bytes()
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("record");
    for len in [100, 1000, 65_536] {
        let (key, value) = (key(1), vec![7; len]);
        let mut record = Vec::new();
        encode(&mut record, &key, &value);
        group.throughput(Throughput::Bytes(record.len() as u64));
        group.bench_function(BenchmarkId::new("encode", len), |b| {
            let mut buf = Vec::with_capacity(record.len());
            b.iter(|| {
                buf.clear();
                encode(&mut buf, black_box(&key), black_box(&value));
            });
        });
        group.bench_function(BenchmarkId::new("decode", len), |b| {
            b.iter(|| decode(black_box(&record)));
        });
    }
}

fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for partitions in [2, 64, 1024] {
        let router = Router::new(partitions);
        let mut number = 0;
        group.bench_function(BenchmarkId::from_parameter(partitions), |b| {
            b.iter(|| {
                number += 1;
                router.partition_of(&black_box(number_key(number)))
            });
        });
    }
}

/// A key that costs next to nothing to make.
fn number_key(number: u64) -> [u8; 20] {
    let mut key = *b"key:................";
    key[4..12].copy_from_slice(&number.to_le_bytes());
    key
}

fn keydir(c: &mut Criterion) {
    let mut group = c.benchmark_group("keydir");
    for keys in [10_000_u64, 1_000_000, 5_000_000] {
        let mut index = Index::new((0..keys).map(number_key));
        println!("keydir of {keys} keys: {:.1} bytes a key", index.bytes_per_key());
        let mut random = fastrand::Rng::with_seed(1);
        group.bench_function(BenchmarkId::new("lookup", keys), |b| {
            b.iter(|| index.lookup(&number_key(random.u64(..keys))));
        });
        group.bench_function(BenchmarkId::new("lookup, missing", keys), |b| {
            b.iter(|| index.lookup(&number_key(random.u64(keys..))));
        });
        group.bench_function(BenchmarkId::new("replace", keys), |b| {
            b.iter(|| index.replace(&number_key(random.u64(..keys)), random.u32(..)));
        });
    }
}

/// What opening does with each key of a hint file, once it has the key.
fn loading(c: &mut Criterion) {
    let mut group = c.benchmark_group("keydir load");
    for keys in [10_000_u64, 1_000_000, 5_000_000] {
        group.sample_size(10).throughput(Throughput::Elements(keys));
        group.bench_function(BenchmarkId::from_parameter(keys), |b| {
            b.iter_with_large_drop(|| Index::new((0..keys).map(number_key)));
        });
    }
}

criterion_group!(benches, records, routing, keydir, loading);
criterion_main!(benches);
