//! What every store has to be able to do here.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Result;
use serde::Serialize;

use crate::keys::{Picker, Values, key};

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// On disk: survives a power cut.
    Durable,
    /// Survives a killed process, as far as the store gives that.
    Buffered,
}

/// What callers do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mix {
    pub reads: u32,
    /// Of a hundred; a read and a put of the same key.
    pub read_modify_writes: u32,
    /// Of a hundred, of 1 to 100 records each.
    pub scans: u32,
    /// Of the puts, those of new keys.
    pub is_inserting: bool,
    pub is_zipf: bool,
}

impl Mix {
    pub const PUTS: Mix =
        Mix { reads: 0, read_modify_writes: 0, scans: 0, is_inserting: false, is_zipf: false };
    pub const GETS: Mix = Mix { reads: 100, ..Mix::PUTS };
}

/// One stretch of work: as many operations as there are until somebody says stop.
pub struct Job<'a> {
    pub mix: Mix,
    pub callers: usize,
    /// Threads for callers that are tasks.
    pub threads: usize,
    pub records: u64,
    pub values: &'a Values,
    pub seed: u64,
    pub stop: &'a AtomicBool,
    /// Numbers of new keys.
    pub next: &'a AtomicU64,
}

/// One operation of a job, decided.
pub enum Operation {
    Get(u64),
    Put(u64),
    GetPut(u64),
    Scan(u64, usize),
}

impl Job<'_> {
    pub fn picker(&self, caller: usize) -> Picker {
        let seed = self.seed * 10_007 + caller as u64;
        if self.mix.is_zipf {
            Picker::zipf(self.records, seed)
        } else {
            Picker::uniform(self.records, seed)
        }
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn decide(&self, picker: &mut Picker) -> Operation {
        let Mix { reads, read_modify_writes, scans, is_inserting, .. } = self.mix;
        if reads > 0 && picker.percent(reads) {
            Operation::Get(picker.next())
        } else if scans > 0 && picker.percent(scans) {
            let from = picker.next();
            Operation::Scan(from, 1 + (from % 100) as usize)
        } else if read_modify_writes > 0 && picker.percent(read_modify_writes) {
            Operation::GetPut(picker.next())
        } else if is_inserting {
            Operation::Put(self.next.fetch_add(1, Ordering::Relaxed))
        } else {
            Operation::Put(picker.next())
        }
    }
}

/// A store that is open, with the durability that it was opened for.
pub trait Peer: Send + Sync {
    /// What was set, and what an acknowledgement means with it.
    fn settings(&self) -> String;

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Length of the value.
    fn get(&self, key: &[u8]) -> Result<Option<usize>>;

    /// Reads so many records from a key on, in order; how many there were.
    fn scan(&self, _from: &[u8], _count: usize) -> Result<usize> {
        anyhow::bail!("it has no ordered scans")
    }

    /// Whether it keeps keys in order.
    fn is_ordered(&self) -> bool {
        true
    }

    /// Puts the records of these numbers, in the way its documentation advises for many at once; durable when it
    /// returns.
    fn load(&self, numbers: std::ops::Range<u64>, values: &Values) -> Result<()>;

    /// Whether callers are tasks, so that their number is not that of threads.
    fn is_async(&self) -> bool {
        false
    }

    /// Runs the job to its end; how many operations there were.
    fn run(&self, job: &Job<'_>) -> Result<u64> {
        on_threads(job.callers, |caller| run_caller(self, job, caller))
    }
}

/// Calls `run` on so many threads, with the number of each; the sum of what they return.
pub fn on_threads(threads: usize, run: impl Fn(usize) -> Result<u64> + Sync) -> Result<u64> {
    let counts = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a caller does not panic"))
            .collect::<Result<Vec<u64>>>()
    })?;
    Ok(counts.into_iter().sum())
}

fn run_caller(peer: &(impl Peer + ?Sized), job: &Job<'_>, caller: usize) -> Result<u64> {
    let mut picker = job.picker(caller);
    // Part of each value too: a store may see that a put changes nothing.
    let mut count = 0;
    while !job.is_over() {
        match job.decide(&mut picker) {
            Operation::Get(number) => found(peer.get(&key(number))?, number)?,
            Operation::Put(number) => peer.put(&key(number), job.values.get(number + count))?,
            Operation::GetPut(number) => {
                found(peer.get(&key(number))?, number)?;
                peer.put(&key(number), job.values.get(number + count))?;
            }
            Operation::Scan(number, len) => {
                peer.scan(&key(number), len)?;
            }
        }
        count += 1;
    }
    Ok(count)
}

/// Every record that is asked for was put: a store that loses one is not measured.
pub fn found(value: Option<usize>, number: u64) -> Result<()> {
    anyhow::ensure!(value.is_some(), "record {number} is missing");
    Ok(())
}

/// How a store is opened.
pub type Open = fn(dir: &Path, class: Class) -> Result<Box<dyn Peer>>;
