//! fjall: an LSM tree; a put is durable once its journal is persisted.

use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::CACHE_LEN;
use crate::keys::{Values, key};
use crate::peer::{Class, Peer};

struct Fjall {
    db: Database,
    records: Keyspace,
    class: Class,
}

pub fn open(dir: &Path, class: Class) -> Result<Box<dyn Peer>> {
    let db = Database::builder(dir).cache_size(CACHE_LEN as u64).worker_threads(2).open()?;
    let records = db.keyspace("records", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { db, records, class }))
}

impl Peer for Fjall {
    fn settings(&self) -> String {
        let sync = match self.class {
            Class::Durable => "persist(SyncData) after each put",
            Class::Buffered => "persisted to the kernel's buffers",
        };
        format!("{sync}; 4 GiB cache, 2 workers")
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.records.insert(key, value)?;
        if self.class == Class::Durable {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.records.get(key)?.map(|value| value.len()))
    }

    fn scan(&self, from: &[u8], count: usize) -> Result<usize> {
        let mut found = 0;
        for entry in self.records.range(from..).take(count) {
            entry.into_inner()?;
            found += 1;
        }
        Ok(found)
    }

    fn load(&self, numbers: std::ops::Range<u64>, values: &Values) -> Result<()> {
        let mut batch = self.db.batch();
        for (index, number) in numbers.enumerate() {
            batch.insert(&self.records, key(number), values.get(number));
            if index % 1000 == 999 {
                std::mem::replace(&mut batch, self.db.batch()).commit()?;
            }
        }
        batch.commit()?;
        Ok(self.db.persist(PersistMode::SyncData)?)
    }
}
