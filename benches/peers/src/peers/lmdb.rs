//! LMDB, through heed: one write transaction a put, which its writers take in turns.

use std::ops::Bound;
use std::path::Path;

use anyhow::Result;
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, WithTls};

use crate::keys::{Values, key};
use crate::peer::{Class, Peer};

const MAP_LEN: usize = 64 << 30;
const READERS_MAX: u32 = 512;

struct Lmdb {
    env: Env<WithTls>,
    records: Database<Bytes, Bytes>,
    class: Class,
}

pub fn open(dir: &Path, class: Class) -> Result<Box<dyn Peer>> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_LEN).max_readers(READERS_MAX);
    let mut flags = EnvFlags::NO_READ_AHEAD;
    if class == Class::Buffered {
        flags |= EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC;
    }
    // SAFETY: the flags do what they say to durability, which is what the class asks for.
    unsafe { options.flags(flags) };
    // SAFETY: nobody else has the directory, which was made for this turn; its file is not changed by others.
    let env = unsafe { options.open(dir)? };
    let mut transaction = env.write_txn()?;
    let records = env.create_database(&mut transaction, None)?;
    transaction.commit()?;
    Ok(Box::new(Lmdb { env, records, class }))
}

impl Peer for Lmdb {
    fn settings(&self) -> String {
        let sync = match self.class {
            Class::Durable => "synced at every commit",
            Class::Buffered => "MDB_NOSYNC",
        };
        format!("{sync}; 64 GiB map, no read-ahead; a transaction a put")
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.records.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        let transaction = self.env.read_txn()?;
        // Copied out, as a value is that outlives its transaction.
        Ok(self
            .records
            .get(&transaction, key)?
            .map(|value| std::hint::black_box(value.to_vec()).len()))
    }

    fn scan(&self, from: &[u8], count: usize) -> Result<usize> {
        let transaction = self.env.read_txn()?;
        let mut found = 0;
        for entry in self
            .records
            .range(&transaction, &(Bound::Included(from), Bound::Unbounded))?
            .take(count)
        {
            let (key, value) = entry?;
            std::hint::black_box((key.to_vec(), value.to_vec()));
            found += 1;
        }
        Ok(found)
    }

    fn load(&self, numbers: std::ops::Range<u64>, values: &Values) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for number in numbers {
            self.records.put(&mut transaction, &key(number), values.get(number))?;
        }
        transaction.commit()?;
        Ok(self.env.force_sync()?)
    }
}
