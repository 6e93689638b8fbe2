//! redb: a copy-on-write B-tree; one write transaction a put.

use std::path::Path;

use anyhow::Result;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::CACHE_LEN;
use crate::keys::{Values, key};
use crate::peer::{Class, Peer};

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

struct Redb {
    db: Database,
    durability: Durability,
}

pub fn open(dir: &Path, class: Class) -> Result<Box<dyn Peer>> {
    let db = Database::builder().set_cache_size(CACHE_LEN).create(dir.join("redb"))?;
    let transaction = db.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.commit()?;
    let durability = match class {
        Class::Durable => Durability::Immediate,
        Class::Buffered => Durability::None,
    };
    Ok(Box::new(Redb { db, durability }))
}

impl Redb {
    fn write(
        &self,
        durability: Durability,
        puts: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for (key, value) in puts {
                table.insert(&key[..], &value[..])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Peer for Redb {
    fn settings(&self) -> String {
        format!("Durability::{:?}; 4 GiB cache; a transaction a put", self.durability)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(self.durability, std::iter::once((key.to_vec(), value.to_vec())))
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        let table = self.db.begin_read()?.open_table(RECORDS)?;
        Ok(table.get(key)?.map(|value| std::hint::black_box(value.value().to_vec()).len()))
    }

    fn scan(&self, from: &[u8], count: usize) -> Result<usize> {
        let table = self.db.begin_read()?.open_table(RECORDS)?;
        let mut found = 0;
        for entry in table.range(from..)?.take(count) {
            let (key, value) = entry?;
            std::hint::black_box((key.value().to_vec(), value.value().to_vec()));
            found += 1;
        }
        Ok(found)
    }

    fn load(&self, numbers: std::ops::Range<u64>, values: &Values) -> Result<()> {
        self.write(
            Durability::Immediate,
            numbers.map(|number| (key(number).to_vec(), values.get(number).to_vec())),
        )
    }
}
