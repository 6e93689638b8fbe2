//! bitask: a Bitcask behind one lock; it never syncs.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Result, anyhow};
use bitask::db::{Bitask, Error};

use crate::keys::{Values, key};
use crate::peer::{Class, Peer};

struct Locked(Mutex<Bitask>);

pub fn open(dir: &Path, _: Class) -> Result<Box<dyn Peer>> {
    Ok(Box::new(Locked(Mutex::new(Bitask::open(dir).map_err(said)?))))
}

fn said(error: Error) -> anyhow::Error {
    anyhow!("{error}")
}

impl Locked {
    fn with<T>(&self, act: impl FnOnce(&mut Bitask) -> Result<T, Error>) -> Result<T> {
        act(&mut self.0.lock().expect("no caller panics")).map_err(said)
    }
}

impl Peer for Locked {
    fn settings(&self) -> String {
        "defaults, behind a lock; never synced".to_owned()
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.with(|db| db.put(key.to_vec(), value.to_vec()))
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        self.with(|db| match db.ask(key) {
            Ok(value) => Ok(Some(value.len())),
            Err(Error::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn is_ordered(&self) -> bool {
        false
    }

    fn load(&self, numbers: std::ops::Range<u64>, values: &Values) -> Result<()> {
        for number in numbers {
            self.put(&key(number), values.get(number))?;
        }
        Ok(())
    }
}
