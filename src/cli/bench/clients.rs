//! The clients of the mix: each has one operation under way, takes its time, and goes on.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use futures::executor::block_on;
use futures::stream::FuturesUnordered;
use futures::task::{ArcWake, waker};
use futures::{StreamExt, TryStreamExt};
use hdrhistogram::Histogram;

use super::keys::{Distribution, Random, Values, counter_key, key, new_key};
use crate::cli::failure::Failure;
use crate::cli::progress;
use crate::{Db, Durability, WriteBatch};

/// Longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(600);
/// Decimal digits of a latency that are right.
const LATENCY_DIGITS: u8 = 3;

/// Shortest sleep between two looks at the clock.
const PARK_MIN: Duration = Duration::from_micros(20);

const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Of what is put with a time to live: none expires while it is measured.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// What a client does that does not read.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WriteKind {
    /// Replaces a record.
    Put,
    /// Replaces a record by one that expires.
    PutTtl,
    /// Adds one to a counter; there are as many counters as records.
    Incr,
    /// Puts a record whose key is not there yet.
    PutIfAbsent,
    /// Puts a record that follows the last one.
    Insert,
    /// Replaces a hundred records, all or none.
    Batch,
}

/// Puts of one batch.
const BATCH_PUTS: u64 = 100;
/// Most entries of a scan; each has from one to so many.
const SCAN_ENTRIES_MAX: u64 = 100;

/// What is timed apart from the rest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Timed {
    Get,
    Write,
    Scan,
    /// A get, and then a write of the same record.
    ReadModifyWrite,
}

/// In this order there are histograms of each.
pub(super) const TIMED: [Timed; 4] =
    [Timed::Get, Timed::Write, Timed::Scan, Timed::ReadModifyWrite];

impl Timed {
    pub(super) fn name(self, write: WriteKind) -> &'static str {
        match self {
            Timed::Get => "get",
            Timed::Write => write.name(),
            Timed::Scan => "scan",
            Timed::ReadModifyWrite => "read-modify-write",
        }
    }
}

impl WriteKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            WriteKind::Put => "put",
            WriteKind::PutTtl => "put-ttl",
            WriteKind::Incr => "incr",
            WriteKind::PutIfAbsent => "put-if-absent",
            WriteKind::Insert => "insert",
            WriteKind::Batch => "batch",
        }
    }
}

/// What the clients do.
pub(super) struct Mix<'a> {
    pub(super) db: &'a Db,
    pub(super) values: &'a Values,
    pub(super) distribution: Distribution,
    pub(super) write: WriteKind,
    pub(super) durability: Durability,
    pub(super) shares: Shares,
    /// Records that there were before the mix.
    pub(super) records: u64,
    /// Where the next new one is put.
    pub(super) end: AtomicU64,
    pub(super) clients: u64,
    pub(super) threads: u64,
    pub(super) limit: Limit,
    /// Operations a second that are begun whether or not those before them are done; `None` if each client
    /// begins one when the one before is done.
    pub(super) rate: Option<f64>,
}

/// Of a hundred operations; the others are writes.
#[derive(Clone, Copy)]
pub(super) struct Shares {
    pub(super) gets: u64,
    pub(super) scans: u64,
    pub(super) read_modify_writes: u64,
}

/// When the clients stop.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    Time(Duration),
    /// All clients together.
    Operations(u64),
}

/// What they did.
pub(super) struct Mixed {
    pub(super) elapsed: Duration,
    pub(super) latencies: Latencies,
    /// Operations done in each second.
    pub(super) timeline: Vec<u64>,
}

impl Mixed {
    pub(super) fn operations(&self) -> u64 {
        self.latencies.0.iter().map(Histogram::len).sum()
    }
}

/// In nanoseconds, in the order of [`TIMED`].
pub(super) struct Latencies(pub(super) [Histogram<u64>; TIMED.len()]);

impl Latencies {
    fn new() -> Latencies {
        Latencies(std::array::from_fn(|_| histogram()))
    }

    pub(super) fn of(&self, timed: Timed) -> &Histogram<u64> {
        &self.0[timed as usize]
    }

    fn record(&mut self, timed: Timed, latency: Duration) {
        self.0[timed as usize].saturating_record(nanos(latency));
    }
}

/// Operations that one thread has done: written by it, read by the progress bar. On a line of its
/// own, because a neighbour's writes would slow this thread's.
#[derive(Default)]
#[repr(align(128))]
struct Done(AtomicU64);

/// Spreads the clients over threads, shows progress, and adds up what they measured.
pub(super) fn run_mix(mix: &Mix<'_>) -> Result<Mixed, Failure> {
    let done: Vec<Done> = (0..mix.threads).map(|_| Done::default()).collect();
    let started = Instant::now();
    let (latencies, timeline) = std::thread::scope(|scope| {
        let threads: Vec<_> = done
            .iter()
            .zip(0..)
            .map(|(done, thread)| scope.spawn(move || run_thread(mix, thread, started, done)))
            .collect();
        let is_over = || threads.iter().all(ScopedJoinHandle::is_finished);
        let timeline = show_progress(mix, started, &done, is_over);
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(latencies) => latencies,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        Ok::<_, Failure>((joined.collect::<Result<Vec<_>, Failure>>()?, timeline))
    })?;
    let mut all = Latencies::new();
    for thread in latencies {
        for (sum, histogram) in all.0.iter_mut().zip(thread.0) {
            *sum += histogram;
        }
    }
    Ok(Mixed { elapsed: started.elapsed(), latencies: all, timeline })
}

/// Shows it until it is over; how many operations were done in each second.
fn show_progress(
    mix: &Mix<'_>,
    started: Instant,
    done: &[Done],
    is_over: impl Fn() -> bool,
) -> Vec<u64> {
    let (mut timeline, mut before) = (Vec::new(), 0);
    let progress = progress::Timed::new(
        "mix",
        match mix.limit {
            Limit::Time(limit) => limit.as_millis() as u64,
            Limit::Operations(count) => count,
        },
    );
    while !is_over() {
        std::thread::sleep(PROGRESS_EVERY);
        let elapsed = started.elapsed();
        let operations = done.iter().map(|done| done.0.load(Ordering::Relaxed)).sum();
        if elapsed.as_secs() > timeline.len() as u64 {
            timeline.push(operations - std::mem::replace(&mut before, operations));
        }
        let position = match mix.limit {
            Limit::Time(_) => elapsed.as_millis() as u64,
            Limit::Operations(_) => operations,
        };
        progress.show(position, elapsed, operations);
    }
    progress.finish();
    timeline
}

/// Runs every `threads`-th client.
fn run_thread(
    mix: &Mix<'_>,
    thread: u64,
    started: Instant,
    done: &Done,
) -> Result<Latencies, Failure> {
    let latencies = RefCell::new(Latencies::new());
    if let Some(rate) = mix.rate {
        run_open_loop(mix, rate, thread, started, &latencies, done)?;
        return Ok(latencies.into_inner());
    }
    let clients: FuturesUnordered<_> = (thread..mix.clients)
        .step_by(mix.threads as usize)
        .map(|client| run_client(mix, client, started, &latencies, done))
        .collect();
    block_on(clients.try_collect::<()>())?;
    Ok(latencies.into_inner())
}

/// Begins operations by the clock, and times each from the moment it was due: one that had to wait for
/// those before it shows how long a caller would have waited (no coordinated omission).
fn run_open_loop(
    mix: &Mix<'_>,
    rate: f64,
    thread: u64,
    started: Instant,
    latencies: &RefCell<Latencies>,
    done: &Done,
) -> Result<(), Failure> {
    let step = Duration::from_secs_f64(mix.threads as f64 / rate);
    let end = match mix.limit {
        Limit::Time(limit) => limit,
        Limit::Operations(count) => Duration::from_secs_f64(count as f64 / rate),
    };
    let waker = waker(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut random = Random::new(thread);
    let mut under_way = FuturesUnordered::new();
    let mut due = step.mul_f64(thread as f64 / mix.threads as f64);
    loop {
        let now = started.elapsed();
        while due <= now && due < end && (under_way.len() as u64) < mix.clients {
            let seed = random.next_u64();
            under_way.push(async move {
                run_operation(mix, &mut Random::new(seed), started + due, latencies).await
            });
            due += step;
        }
        loop {
            match under_way.poll_next_unpin(&mut cx) {
                Poll::Ready(Some(ended)) => {
                    ended?;
                    done.0.store(done.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
                Poll::Ready(None) if due >= end => return Ok(()),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        std::thread::park_timeout(due.saturating_sub(started.elapsed()).max(PARK_MIN));
    }
}

/// Wakes the thread that polls.
struct Unpark(std::thread::Thread);

impl ArcWake for Unpark {
    fn wake_by_ref(unpark: &Arc<Unpark>) {
        unpark.0.unpark();
    }
}

/// One operation, timed from `due`.
async fn run_operation(
    mix: &Mix<'_>,
    random: &mut Random,
    due: Instant,
    latencies: &RefCell<Latencies>,
) -> Result<(), Failure> {
    let Shares { gets, scans, read_modify_writes } = mix.shares;
    let record = mix.distribution.pick(random, mix.end.load(Ordering::Relaxed));
    let choice = random.below(100);
    let timed = if choice < gets {
        run_get(mix, record).await?;
        Timed::Get
    } else if choice < gets + scans {
        run_scan(mix, record, 1 + random.below(SCAN_ENTRIES_MAX)).await?;
        Timed::Scan
    } else if choice < gets + scans + read_modify_writes {
        run_get(mix, record).await?;
        run_write(mix, record, random).await?;
        Timed::ReadModifyWrite
    } else {
        run_write(mix, record, random).await?;
        Timed::Write
    };
    latencies.borrow_mut().record(timed, due.elapsed());
    Ok(())
}

async fn run_get(mix: &Mix<'_>, record: u64) -> Result<(), Failure> {
    let key = key(record);
    // A record that another client is just putting may not be there yet.
    if mix.db.get(&key).await?.is_none() && record < mix.records {
        return Err(Failure::Failed(format!("{key}: the record was put and is not there")));
    }
    Ok(())
}

async fn run_scan(mix: &Mix<'_>, record: u64, entries: u64) -> Result<(), Failure> {
    let mut scan = mix.db.scan().range(key(record)..).limit(entries as usize);
    while let Some(entry) = scan.next().await {
        entry?;
    }
    Ok(())
}

async fn run_write(mix: &Mix<'_>, record: u64, random: &mut Random) -> Result<(), Failure> {
    let (db, durability) = (mix.db, mix.durability);
    let number = random.next_u64();
    let value = mix.values.get(number);
    match mix.write {
        WriteKind::Put => db.put(key(record), value).durability(durability).await?,
        WriteKind::PutTtl => db.put(key(record), value).ttl(TTL).durability(durability).await?,
        WriteKind::Incr => {
            db.incr(counter_key(record), 1).durability(durability).await?;
        }
        WriteKind::PutIfAbsent => {
            // One in 2⁶⁴ is there already, and that is an answer too.
            db.put_if_absent(new_key(number), value).durability(durability).await?;
        }
        WriteKind::Insert => {
            let record = mix.end.fetch_add(1, Ordering::Relaxed);
            db.put(key(record), value).durability(durability).await?;
        }
        WriteKind::Batch => {
            let mut batch = WriteBatch::new();
            for number in 0..BATCH_PUTS {
                let record = mix.distribution.pick(random, mix.end.load(Ordering::Relaxed));
                batch = batch.put(key(record), mix.values.get(number));
            }
            db.write(batch).durability(durability).await?;
        }
    }
    Ok(())
}

async fn run_client(
    mix: &Mix<'_>,
    client: u64,
    started: Instant,
    latencies: &RefCell<Latencies>,
    done: &Done,
) -> Result<(), Failure> {
    let mut random = Random::new(client);
    let mut left = match mix.limit {
        Limit::Time(_) => u64::MAX,
        // Shares that differ by at most one, so that clients need no common counter.
        Limit::Operations(count) => count / mix.clients + u64::from(client < count % mix.clients),
    };
    let deadline = match mix.limit {
        Limit::Time(limit) => Some(started + limit),
        Limit::Operations(_) => None,
    };
    while left > 0 {
        let begun = Instant::now();
        if deadline.is_some_and(|deadline| begun >= deadline) {
            break;
        }
        run_operation(mix, &mut random, begun, latencies).await?;
        left -= 1;
        done.0.store(done.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let_others_run().await;
    }
    Ok(())
}

/// A get that is answered on the caller's thread never waits; without this a client of only such
/// gets would keep its thread, and the latencies of its neighbours would be its own run time.
async fn let_others_run() {
    let mut has_yielded = false;
    std::future::poll_fn(|cx| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(nanos(LATENCY_MAX), LATENCY_DIGITS)
        .expect("the bounds are constants within the crate's limits")
}

fn nanos(latency: Duration) -> u64 {
    latency.as_nanos() as u64
}
