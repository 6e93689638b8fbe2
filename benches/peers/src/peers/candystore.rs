//! CandyStore: a hash index in a mapped file and data files; durable once flushed.

use std::path::Path;

use anyhow::{Result, anyhow};
use candystore::{CandyStore, Config};

use crate::keys::{Values, key};
use crate::peer::{Class, Peer};

struct Candy {
    db: CandyStore,
    class: Class,
}

pub fn open(dir: &Path, class: Class) -> Result<Box<dyn Peer>> {
    let db = CandyStore::open(dir, Config::default()).map_err(said)?;
    Ok(Box::new(Candy { db, class }))
}

fn said(error: candystore::Error) -> anyhow::Error {
    anyhow!("{error}")
}

impl Peer for Candy {
    fn settings(&self) -> String {
        let sync = match self.class {
            Class::Durable => "flush after each put",
            Class::Buffered => "checkpoints by itself",
        };
        format!("{sync}; defaults")
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.set(key, value).map_err(said)?;
        if self.class == Class::Durable {
            self.db.flush().map_err(said)?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.db.get(key).map_err(said)?.map(|value| value.len()))
    }

    fn is_ordered(&self) -> bool {
        false
    }

    fn load(&self, numbers: std::ops::Range<u64>, values: &Values) -> Result<()> {
        for number in numbers {
            self.db.set(key(number), values.get(number)).map_err(said)?;
        }
        self.db.flush().map_err(said)
    }
}
