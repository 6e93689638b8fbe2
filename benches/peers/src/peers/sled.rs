//! sled 0.34.

use std::path::Path;

use anyhow::Result;
use sled::{Db, Mode};

use super::CACHE_LEN;
use crate::keys::{Values, key};
use crate::peer::{Class, Peer};

struct Sled {
    db: Db,
    class: Class,
}

pub fn open(dir: &Path, class: Class) -> Result<Box<dyn Peer>> {
    let config =
        sled::Config::new().path(dir).cache_capacity(CACHE_LEN as u64).mode(Mode::HighThroughput);
    Ok(Box::new(Sled { db: config.open()?, class }))
}

impl Peer for Sled {
    fn settings(&self) -> String {
        let sync = match self.class {
            Class::Durable => "flush after each put",
            Class::Buffered => "flushed every 500 ms by itself",
        };
        format!("{sync}; 4 GiB cache, high throughput")
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.insert(key, value)?;
        if self.class == Class::Durable {
            self.db.flush()?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.db.get(key)?.map(|value| value.len()))
    }

    fn scan(&self, from: &[u8], count: usize) -> Result<usize> {
        let mut found = 0;
        for entry in self.db.range(from..).take(count) {
            entry?;
            found += 1;
        }
        Ok(found)
    }

    fn load(&self, numbers: std::ops::Range<u64>, values: &Values) -> Result<()> {
        for number in numbers {
            self.db.insert(key(number), values.get(number))?;
        }
        self.db.flush()?;
        Ok(())
    }
}
