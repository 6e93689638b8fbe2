//! RocksDB: pipelined writes, 64 MiB memtables, a bloom filter, a block cache that holds the data of the read
//! rows, as its tuning guide advises for point look-ups.

use std::path::Path;

use anyhow::Result;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, Options, WriteBatch,
    WriteOptions,
};

use super::CACHE_LEN;
use crate::keys::{Values, key};
use crate::peer::{Class, Peer};

struct Rocks {
    db: DB,
    write: WriteOptions,
    class: Class,
}

pub fn open(dir: &Path, class: Class) -> Result<Box<dyn Peer>> {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(CACHE_LEN));
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(5);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options.increase_parallelism(2);
    options.set_max_background_jobs(4);
    options.set_write_buffer_size(64 << 20);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_bytes_per_sync(1 << 20);
    options.set_enable_pipelined_write(true);
    let mut write = WriteOptions::default();
    write.set_sync(class == Class::Durable);
    Ok(Box::new(Rocks { db: DB::open(&options, dir)?, write, class }))
}

impl Peer for Rocks {
    fn settings(&self) -> String {
        format!(
            "sync = {}; pipelined writes, 64 MiB memtables, 4 background jobs, 4 GiB block cache, bloom 10 bits, \
             no compression",
            self.class == Class::Durable
        )
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.write)?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.db.get_pinned(key)?.map(|value| value.len()))
    }

    fn scan(&self, from: &[u8], count: usize) -> Result<usize> {
        let mut found = 0;
        for entry in self.db.iterator(IteratorMode::From(from, Direction::Forward)).take(count) {
            entry?;
            found += 1;
        }
        Ok(found)
    }

    fn load(&self, numbers: std::ops::Range<u64>, values: &Values) -> Result<()> {
        let mut unsynced = WriteOptions::default();
        unsynced.set_sync(false);
        let mut batch = WriteBatch::default();
        for number in numbers {
            batch.put(key(number), values.get(number));
            if batch.len() == 1000 {
                self.db.write_opt(std::mem::take(&mut batch), &unsynced)?;
            }
        }
        self.db.write_opt(batch, &unsynced)?;
        self.db.flush_wal(true)?;
        Ok(())
    }
}
