//! What a bench found, for people or as one JSON object.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};

use super::BenchArgs;
use super::clients::Mixed;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::{PartitionStats, Stats};

pub(super) struct LoadPhase {
    pub(super) records: u64,
    pub(super) elapsed: Duration,
}

pub(super) struct Report<'a> {
    pub(super) args: &'a BenchArgs,
    pub(super) load: &'a LoadPhase,
    pub(super) mixed: &'a Mixed,
    /// The engine's counts when the mix began, and when it ended.
    pub(super) before: &'a PartitionStats,
    pub(super) after: &'a Stats,
}

/// What the engine did for the mix.
struct Engine {
    commits: u64,
    commits_dsync: u64,
    syncs: u64,
    records_per_commit: f64,
    hop_free_percent: f64,
    keydir_bytes_per_key: f64,
    compactions: u64,
    compaction_read_bytes: u64,
    compaction_written_bytes: u64,
    throttled_seconds: f64,
}

impl Report<'_> {
    pub(super) fn print(&self, dir: &Path, output: &mut Output) -> Result<(), Failure> {
        if output.is_json() { output.json(&self.json(dir)) } else { self.text(dir, output) }
    }

    fn engine(&self) -> Engine {
        let (before, after) = (self.before, self.after.total());
        let commits = after.commits - before.commits;
        let gets = after.gets - before.gets;
        Engine {
            commits,
            commits_dsync: after.commits_dsync - before.commits_dsync,
            syncs: after.syncs - before.syncs,
            records_per_commit: ratio(after.commit_records - before.commit_records, commits),
            hop_free_percent: 100.0 * ratio(after.gets_hop_free - before.gets_hop_free, gets),
            keydir_bytes_per_key: ratio(after.keydir_bytes, after.keys),
            compactions: after.compactions - before.compactions,
            compaction_read_bytes: after.compaction_read_bytes - before.compaction_read_bytes,
            compaction_written_bytes: after.compaction_written_bytes
                - before.compaction_written_bytes,
            throttled_seconds: (after.throttled_nanos - before.throttled_nanos) as f64 / 1e9,
        }
    }

    fn json(&self, dir: &Path) -> Value {
        let (args, load, mixed) = (self.args, self.load, self.mixed);
        let engine = self.engine();
        json!({
            "dir": dir.to_string_lossy(),
            "io": self.after.io,
            "partitions": self.after.partitions.len(),
            "workers": self.after.workers,
            "value_size": args.value_size,
            "load": {
                "records": load.records,
                "seconds": load.elapsed.as_secs_f64(),
                "records_per_second": rate(load.records, load.elapsed),
            },
            "mix": {
                "clients": args.clients,
                "threads": args.threads(),
                "reads_percent": args.reads,
                "op": args.op.name(),
                "durability": args.durability.to_string(),
                "distribution": args.distribution.name(),
                "seconds": mixed.elapsed.as_secs_f64(),
                "operations": mixed.operations(),
                "operations_per_second": rate(mixed.operations(), mixed.elapsed),
                "get": latency_json(&mixed.gets, mixed.elapsed),
                (args.op.name()): latency_json(&mixed.writes, mixed.elapsed),
            },
            "engine": {
                "commits": engine.commits,
                "commits_dsync": engine.commits_dsync,
                "syncs": engine.syncs,
                "records_per_commit": engine.records_per_commit,
                "hop_free_percent": engine.hop_free_percent,
                "keydir_bytes_per_key": engine.keydir_bytes_per_key,
                "compactions": engine.compactions,
                "compaction_read_bytes": engine.compaction_read_bytes,
                "compaction_written_bytes": engine.compaction_written_bytes,
                "throttled_seconds": engine.throttled_seconds,
            },
        })
    }

    fn text(&self, dir: &Path, output: &mut Output) -> Result<(), Failure> {
        let (args, load, mixed) = (self.args, self.load, self.mixed);
        output.line(format_args!(
            "store    {}, {} partitions, {} workers, {}",
            dir.display(),
            self.after.partitions.len(),
            self.after.workers,
            self.after.io
        ))?;
        output.line(format_args!(
            "load     {} records of {} bytes in {:.2} s: {} records/s",
            HumanCount(load.records),
            args.value_size,
            load.elapsed.as_secs_f64(),
            human_rate(load.records, load.elapsed)
        ))?;
        output.line(format_args!(
            "mix      {} clients on {} threads, {} % gets, {}, {} {}, {:.2} s: {} operations/s",
            args.clients,
            args.threads(),
            args.reads,
            args.distribution.name(),
            args.durability,
            args.op.name(),
            mixed.elapsed.as_secs_f64(),
            human_rate(mixed.operations(), mixed.elapsed)
        ))?;
        output.line(format_args!(
            "{:<13} {:>13} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "", "operations", "a second", "p50", "p90", "p99", "p99.9", "max"
        ))?;
        print_latency("get", &mixed.gets, mixed.elapsed, output)?;
        print_latency(args.op.name(), &mixed.writes, mixed.elapsed, output)?;
        let engine = self.engine();
        output.line(format_args!(
            "commits  {} of {:.1} records; {} syncs, {} of them DSYNC writes",
            HumanCount(engine.commits),
            engine.records_per_commit,
            HumanCount(engine.syncs),
            HumanCount(engine.commits_dsync)
        ))?;
        output.line(format_args!(
            "gets     {:.1} % answered on the caller's thread",
            engine.hop_free_percent
        ))?;
        output.line(format_args!("keydir   {:.1} bytes a key", engine.keydir_bytes_per_key))?;
        output.line(format_args!(
            "compact  {} times, {} became {}; writers were held back {:.2} s",
            engine.compactions,
            HumanBytes(engine.compaction_read_bytes),
            HumanBytes(engine.compaction_written_bytes),
            engine.throttled_seconds
        ))
    }
}

/// In microseconds: a get is a few of them, a durable put some hundreds.
fn print_latency(
    name: &str,
    latencies: &Histogram<u64>,
    elapsed: Duration,
    output: &mut Output,
) -> Result<(), Failure> {
    if latencies.is_empty() {
        return Ok(());
    }
    let micros = |nanos: u64| format!("{:.1} µs", nanos as f64 / 1e3);
    let at = |quantile| micros(latencies.value_at_quantile(quantile));
    output.line(format_args!(
        "{name:<13} {:>13} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}",
        HumanCount(latencies.len()).to_string(),
        human_rate(latencies.len(), elapsed).to_string(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        micros(latencies.max())
    ))
}

fn latency_json(latencies: &Histogram<u64>, elapsed: Duration) -> Value {
    json!({
        "operations": latencies.len(),
        "operations_per_second": rate(latencies.len(), elapsed),
        "p50_nanos": latencies.value_at_quantile(0.5),
        "p90_nanos": latencies.value_at_quantile(0.9),
        "p99_nanos": latencies.value_at_quantile(0.99),
        "p999_nanos": latencies.value_at_quantile(0.999),
        "max_nanos": latencies.max(),
    })
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

#[expect(clippy::cast_sign_loss, reason = "a rate is positive")]
fn human_rate(count: u64, elapsed: Duration) -> HumanCount {
    HumanCount(rate(count, elapsed).round() as u64)
}

/// Zero where there is nothing to divide by.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
