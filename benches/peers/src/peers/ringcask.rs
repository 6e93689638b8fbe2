//! Ringcask: callers are tasks, many on each of a few threads.

use std::path::Path;

use anyhow::Result;
use futures::TryStreamExt;
use futures::executor::block_on;
use futures::stream::FuturesUnordered;
use ringcask::{Db, Durability, Options};

use super::CACHE_LEN;
use crate::keys::{Values, key};
use crate::peer::{Class, Job, Operation, Peer, found, on_threads};

struct Ringcask {
    db: Db,
    class: Class,
    /// What it has that is no default.
    memory: &'static str,
}

pub fn open(dir: &Path, class: Class) -> Result<Box<dyn Peer>> {
    open_with(dir, class, Options::new(), "defaults")
}

pub fn open_cached(dir: &Path, class: Class) -> Result<Box<dyn Peer>> {
    let options = Options::new().read_cache_bytes(CACHE_LEN as u64);
    open_with(dir, class, options, "4 GiB read cache")
}

pub fn open_locked(dir: &Path, class: Class) -> Result<Box<dyn Peer>> {
    let options = Options::new().locked_bytes(CACHE_LEN as u64);
    open_with(dir, class, options, "4 GiB of files locked in memory")
}

fn open_with(
    dir: &Path,
    class: Class,
    options: Options,
    memory: &'static str,
) -> Result<Box<dyn Peer>> {
    let durability = match class {
        Class::Durable => Durability::Sync,
        Class::Buffered => Durability::Buffered,
    };
    let db = block_on(options.durability(durability).open(dir))?;
    Ok(Box::new(Ringcask { db, class, memory }))
}

impl Peer for Ringcask {
    fn settings(&self) -> String {
        let stats = self.db.stats();
        format!(
            "{}; Durability::{}; {} partitions, {} workers, {}",
            self.memory,
            if self.class == Class::Durable { "Sync" } else { "Buffered" },
            stats.partitions.len(),
            stats.workers,
            stats.io
        )
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(block_on(self.db.put(key, value).into_future())?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        Ok(block_on(self.db.get(key))?.map(|value| value.len()))
    }

    fn scan(&self, from: &[u8], count: usize) -> Result<usize> {
        block_on(self.scan_async(from, count))
    }

    fn load(&self, numbers: std::ops::Range<u64>, values: &Values) -> Result<()> {
        block_on(self.db.load(numbers.map(|number| (key(number), values.get(number)))))?;
        Ok(())
    }

    fn is_async(&self) -> bool {
        true
    }

    fn run(&self, job: &Job<'_>) -> Result<u64> {
        let threads = job.threads.min(job.callers);
        on_threads(threads, |thread| {
            let callers = (thread..job.callers).step_by(threads);
            let tasks: FuturesUnordered<_> =
                callers.map(|caller| self.run_caller(job, caller)).collect();
            block_on(tasks.try_fold(0, |sum, count| async move { Ok(sum + count) }))
        })
    }
}

impl Drop for Ringcask {
    /// Dropped alone, the store would end its work beside the next turn, in a directory that is being removed.
    fn drop(&mut self) {
        if let Err(error) = block_on(self.db.close()) {
            eprintln!("ringcask: close: {error}");
        }
    }
}

impl Ringcask {
    async fn run_caller(&self, job: &Job<'_>, caller: usize) -> Result<u64> {
        let mut picker = job.picker(caller);
        let mut count = 0;
        while !job.is_over() {
            match job.decide(&mut picker) {
                Operation::Get(number) => self.get_found(number).await?,
                Operation::Put(number) => {
                    self.db.put(key(number), job.values.get(number + count)).await?
                }
                Operation::GetPut(number) => {
                    self.get_found(number).await?;
                    self.db.put(key(number), job.values.get(number + count)).await?;
                }
                Operation::Scan(number, len) => {
                    self.scan_async(&key(number), len).await?;
                }
            }
            count += 1;
            // A get that is answered at once would keep its thread from the other callers.
            if count % 32 == 0 && job.callers > job.threads {
                yield_now().await;
            }
        }
        Ok(count)
    }

    async fn get_found(&self, number: u64) -> Result<()> {
        found(self.db.get(key(number)).await?.map(|value| value.len()), number)
    }

    async fn scan_async(&self, from: &[u8], count: usize) -> Result<usize> {
        let mut scan = self.db.scan().range(from..).limit(count);
        let mut found = 0;
        while let Some(entry) = scan.next().await {
            entry?;
            found += 1;
        }
        Ok(found)
    }
}

async fn yield_now() {
    let mut is_first = true;
    std::future::poll_fn(|cx| {
        if std::mem::take(&mut is_first) {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(())
    })
    .await;
}
