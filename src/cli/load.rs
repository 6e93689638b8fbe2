//! `load`: many puts in flight, fed by the parser's thread.
//!
//! ## Invariants
//! - **LD1** What is in flight stays below the bounds of one mailbox, so every put is admitted when
//!   it is first polled. Puts are first polled in the order of their lines; so of two lines with one
//!   key, which share a mailbox, the later one stays.

use std::path::PathBuf;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::HumanCount;
use serde_json::json;

use super::args::{CompressionArgs, DurabilityArg, KeyspaceArgs, StoreArgs};
use super::failure::{Failure, Outcome};
use super::format::Format;
use super::input::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch, Batches, Record, Source};
use super::output::Output;
use super::progress;
use super::store::open_space_to_put;
use crate::limits::{MAILBOX_BYTES_MAX_DEFAULT, MAILBOX_REQUESTS_MAX_DEFAULT};
use crate::{Db, Durability};

/// Puts in flight at which no further batch is taken.
const IN_FLIGHT_MAX: usize = MAILBOX_REQUESTS_MAX_DEFAULT - BATCH_RECORDS_MAX;
/// Bytes in flight at which no further batch is taken: half, because the mailbox counts a little
/// more than keys and values.
const IN_FLIGHT_BYTES_MAX: usize = MAILBOX_BYTES_MAX_DEFAULT / 2;
const _: () = assert!(IN_FLIGHT_BYTES_MAX + BATCH_BYTES_MAX < MAILBOX_BYTES_MAX_DEFAULT);

#[derive(clap::Args)]
pub(super) struct LoadArgs {
    /// The file, or `-` for standard input.
    file: PathBuf,
    /// What a line looks like.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// When a put is done; the load as a whole is always synced before it is reported.
    #[arg(long, value_enum, default_value_t = DurabilityArg::Buffered)]
    durability: DurabilityArg,
    #[command(flatten)]
    compression: CompressionArgs,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

pub(super) async fn load(
    store: &StoreArgs,
    args: &LoadArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let source = Source::open(&args.file)?;
    let db = open_space_to_put(store, &args.compression, &args.keyspace).await?;
    let progress = progress::bytes("load", source.len);
    let started = Instant::now();
    let batches = Batches::start(source, args.format, store.value_len_max);
    let mut loaded = Loaded::default();
    let fed = feed(&db, batches, args.durability.into(), |batch| progress.inc(batch), &mut loaded);
    let fed = fed.await;
    // Also after an error: what was loaded before it stays.
    db.sync().await?;
    let elapsed = started.elapsed();
    progress.finish_and_clear();
    db.close().await?;
    fed?;
    loaded.report(elapsed, output)?;
    Ok(Outcome::Done)
}

/// What became of the records.
#[derive(Default)]
struct Loaded {
    /// That were put, and the bytes of their keys and values.
    records: u64,
    bytes: u64,
    /// That had expired already, and were left out.
    expired: u64,
}

enum Event {
    Put { line_number: u64, len_bytes: usize, done: crate::Result<()> },
    Batch(Batch),
    Failed(Failure),
    Ended,
}

/// Puts everything that comes; after an error it takes nothing more and waits for what was sent.
async fn feed(
    db: &Db,
    mut batches: Batches,
    durability: Durability,
    advance: impl Fn(u64),
    loaded: &mut Loaded,
) -> Result<(), Failure> {
    let mut in_flight = FuturesUnordered::new();
    let mut in_flight_bytes = 0;
    let mut input_ended = false;
    let mut outcome = Ok(());
    loop {
        let has_room = in_flight.len() < IN_FLIGHT_MAX && in_flight_bytes < IN_FLIGHT_BYTES_MAX;
        let event = std::future::poll_fn(|cx| {
            // Puts first: polling them is what sends them, and what is done makes room.
            if let Poll::Ready(Some(put)) = in_flight.poll_next_unpin(cx) {
                return Poll::Ready(put);
            }
            if input_ended {
                return if in_flight.is_empty() {
                    Poll::Ready(Event::Ended)
                } else {
                    Poll::Pending
                };
            }
            if !has_room {
                return Poll::Pending;
            }
            batches.poll_next(cx).map(|batch| match batch {
                Some(Ok(batch)) => Event::Batch(batch),
                Some(Err(failure)) => Event::Failed(failure),
                None => Event::Ended,
            })
        })
        .await;
        match event {
            Event::Put { len_bytes, done: Ok(()), .. } => {
                in_flight_bytes -= len_bytes;
                loaded.records += 1;
                loaded.bytes += len_bytes as u64;
            }
            Event::Put { line_number, len_bytes, done: Err(error) } => {
                in_flight_bytes -= len_bytes;
                input_ended = true;
                let sentence = format!("{} line {line_number}: {error}", batches.name());
                outcome = outcome.and(Err(Failure::Failed(sentence)));
            }
            Event::Batch(batch) => {
                advance(batch.input_bytes);
                let now = SystemTime::now();
                for Record { line_number, key, value, expires_at } in batch.records {
                    if expires_at.is_some_and(|at| at <= now) {
                        loaded.expired += 1;
                        continue;
                    }
                    let len_bytes = key.len() + value.len();
                    in_flight_bytes += len_bytes;
                    let put = db.put(key, value).durability(durability);
                    let put = match expires_at {
                        Some(at) => put.expires_at(at),
                        None => put.forever(),
                    };
                    in_flight.push(async move {
                        Event::Put { line_number, len_bytes, done: put.await }
                    });
                }
            }
            Event::Failed(failure) => {
                input_ended = true;
                outcome = outcome.and(Err(failure));
            }
            Event::Ended if input_ended => return outcome,
            Event::Ended => input_ended = true,
        }
    }
}

impl Loaded {
    fn report(&self, elapsed: Duration, output: &mut Output) -> Result<(), Failure> {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let records_per_second = self.records as f64 / seconds;
        let megabytes = self.bytes as f64 / 1e6;
        if output.is_json() {
            return output.json(&json!({
                "records": self.records,
                "expired": self.expired,
                "bytes": self.bytes,
                "seconds": seconds,
                "records_per_second": records_per_second,
                "megabytes_per_second": megabytes / seconds,
            }));
        }
        #[expect(clippy::cast_sign_loss, reason = "a rate is positive")]
        let rate = HumanCount(records_per_second.round() as u64);
        if self.expired > 0 {
            output.line(format_args!(
                "left out {} records that have expired",
                HumanCount(self.expired)
            ))?;
        }
        output.line(format_args!(
            "loaded {} records, {megabytes:.1} MB in {seconds:.2} s: {rate} records/s, {:.1} MB/s",
            HumanCount(self.records),
            megabytes / seconds,
        ))
    }
}
