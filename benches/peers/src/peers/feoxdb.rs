//! FeOxDB: everything in memory too, written behind; durable once flushed.

use std::path::Path;

use anyhow::{Result, anyhow};
use feoxdb::{FeoxError, FeoxStore};

use crate::keys::{Values, key};
use crate::peer::{Class, Peer};

const FILE_LEN: u64 = 16 << 30;

struct Feox {
    db: FeoxStore,
    class: Class,
}

pub fn open(dir: &Path, class: Class) -> Result<Box<dyn Peer>> {
    let path = dir.join("feox").to_string_lossy().into_owned();
    let store =
        FeoxStore::builder().device_path(path).file_size(FILE_LEN).no_memory_limit().build();
    Ok(Box::new(Feox { db: store.map_err(said)?, class }))
}

fn said(error: FeoxError) -> anyhow::Error {
    anyhow!("{error:?}")
}

impl Peer for Feox {
    fn settings(&self) -> String {
        let sync = match self.class {
            Class::Durable => "flush after each put",
            Class::Buffered => "written behind from memory: a killed process loses up to 100 ms",
        };
        format!("{sync}; no limit of memory, 16 GiB file")
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.insert(key, value).map_err(said)?;
        if self.class == Class::Durable {
            self.db.flush().map_err(said)?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        match self.db.get_bytes(key) {
            Ok(value) => Ok(Some(value.len())),
            Err(FeoxError::KeyNotFound) => Ok(None),
            Err(error) => Err(said(error)),
        }
    }

    fn scan(&self, from: &[u8], count: usize) -> Result<usize> {
        Ok(self.db.range_query(from, &[0xff; 32], count).map_err(said)?.len())
    }

    fn load(&self, numbers: std::ops::Range<u64>, values: &Values) -> Result<()> {
        for number in numbers {
            self.db.insert(&key(number), values.get(number)).map_err(said)?;
        }
        self.db.flush().map_err(said)
    }
}
