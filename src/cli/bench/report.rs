//! What a bench found, for people or as one JSON object.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};

use super::BenchArgs;
use super::beside::Done;
use super::clients::{Mixed, TIMED, Timed};
use super::look::Looked;
use super::reopen::Reopened;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::{PartitionStats, Stats};

pub(super) struct LoadPhase {
    pub(super) records: u64,
    pub(super) elapsed: Duration,
}

pub(super) struct Report<'a> {
    pub(super) args: &'a BenchArgs,
    pub(super) dir: &'a Path,
    pub(super) load: &'a LoadPhase,
    pub(super) mixed: &'a Mixed,
    /// The engine's counts when the mix began, and when it ended.
    pub(super) before: &'a PartitionStats,
    pub(super) after: &'a Stats,
    pub(super) beside: Option<&'a Done>,
    pub(super) looked: Option<&'a Looked>,
    /// Memory of the process in the end.
    pub(super) resident_bytes: u64,
    pub(super) reopened: Option<&'a Reopened>,
}

/// What the engine did for the mix.
struct Engine {
    commits: u64,
    commits_dsync: u64,
    syncs: u64,
    records_per_commit: f64,
    hop_free_percent: f64,
    /// Nothing is read before the mix.
    read_cache_percent: f64,
    keydir_bytes_per_key: f64,
    compactions: u64,
    compaction_read_bytes: u64,
    compaction_written_bytes: u64,
    throttled_seconds: f64,
}

impl Report<'_> {
    pub(super) fn print(&self, output: &mut Output) -> Result<(), Failure> {
        if output.is_json() { output.json(&self.json()) } else { self.text(output) }
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
            read_cache_percent: 100.0 * ratio(self.after.read_cache_hits, after.gets),
            keydir_bytes_per_key: ratio(after.keydir_bytes, after.keys),
            compactions: after.compactions - before.compactions,
            compaction_read_bytes: after.compaction_read_bytes - before.compaction_read_bytes,
            compaction_written_bytes: after.compaction_written_bytes
                - before.compaction_written_bytes,
            throttled_seconds: (after.throttled_nanos - before.throttled_nanos) as f64 / 1e9,
        }
    }

    pub(super) fn json(&self) -> Value {
        let (args, load, mixed) = (self.args, self.load, self.mixed);
        let engine = self.engine();
        let mut found = json!({
            "dir": self.dir.to_string_lossy(),
            "io": self.after.io,
            "partitions": self.after.partitions.len(),
            "workers": self.after.workers,
            "value_size": args.value_len(),
            "load": {
                "records": load.records,
                "seconds": load.elapsed.as_secs_f64(),
                "records_per_second": rate(load.records, load.elapsed),
            },
            "mix": {
                "clients": args.clients,
                "threads": args.threads(),
                "workload": args.workload.map(|workload| workload.name().to_string()),
                "reads_percent": args.shares().gets,
                "op": args.write().name(),
                "durability": args.durability.to_string(),
                "distribution": args.distribution().name(),
                "seconds": mixed.elapsed.as_secs_f64(),
                "operations": mixed.operations(),
                "operations_per_second": rate(mixed.operations(), mixed.elapsed),
                "operations_each_second": mixed.timeline,
            },
            "engine": {
                "commits": engine.commits,
                "commits_dsync": engine.commits_dsync,
                "syncs": engine.syncs,
                "records_per_commit": engine.records_per_commit,
                "hop_free_percent": engine.hop_free_percent,
                "locked_bytes": self.after.locked_bytes,
                "read_cache_percent": engine.read_cache_percent,
                "read_cache_bytes": self.after.read_cache_bytes,
                "keydir_bytes_per_key": engine.keydir_bytes_per_key,
                "resident_bytes": self.resident_bytes,
                "log_bytes": self.after.total().log_bytes,
                "live_bytes": self.after.total().live_bytes,
                "compactions": engine.compactions,
                "compaction_read_bytes": engine.compaction_read_bytes,
                "compaction_written_bytes": engine.compaction_written_bytes,
                "throttled_seconds": engine.throttled_seconds,
            },
        });
        for timed in TIMED {
            let latencies = mixed.latencies.of(timed);
            let is_asked = matches!(timed, Timed::Get | Timed::Write) || !latencies.is_empty();
            if is_asked {
                let name = timed.name(args.write());
                found["mix"][name] = latency_json(latencies, mixed.elapsed);
            }
        }
        if let (Some(what), Some(done)) = (args.beside, self.beside) {
            found["beside"] = json!({
                "what": what.name(),
                "times": done.times,
                "count": done.count,
                "longest_seconds": done.longest.as_secs_f64(),
            });
        }
        if let Some(looked) = self.looked {
            found["look"] = looked_json(looked);
        }
        if let Some(Reopened { keys, log_bytes, with_hints, without_hints }) = self.reopened {
            found["open"] = json!({
                "keys": keys,
                "log_bytes": log_bytes,
                "with_hints_seconds": with_hints.as_secs_f64(),
                "without_hints_seconds": without_hints.as_secs_f64(),
                "with_hints_keys_per_second": rate(*keys, *with_hints),
                "without_hints_bytes_per_second": rate(*log_bytes, *without_hints),
            });
        }
        found
    }

    fn text(&self, output: &mut Output) -> Result<(), Failure> {
        let (args, load, mixed) = (self.args, self.load, self.mixed);
        output.line(format_args!(
            "store    {}, {} partitions, {} workers, {}",
            self.dir.display(),
            self.after.partitions.len(),
            self.after.workers,
            self.after.io
        ))?;
        output.line(format_args!(
            "load     {} records of {} bytes in {:.2} s: {} records/s",
            HumanCount(load.records),
            args.value_len(),
            load.elapsed.as_secs_f64(),
            human_rate(load.records, load.elapsed)
        ))?;
        output.line(format_args!(
            "mix      {} clients on {} threads, {}, {}, {} {}, {:.2} s: {} operations/s",
            args.clients,
            args.threads(),
            args.mix_words(),
            args.distribution().name(),
            args.durability,
            args.write().name(),
            mixed.elapsed.as_secs_f64(),
            human_rate(mixed.operations(), mixed.elapsed)
        ))?;
        output.line(format_args!(
            "{:<17} {:>13} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "", "operations", "a second", "p50", "p90", "p99", "p99.9", "max"
        ))?;
        for timed in TIMED {
            let name = timed.name(args.write());
            print_latency(name, mixed.latencies.of(timed), mixed.elapsed, output)?;
        }
        let engine = self.engine();
        output.line(format_args!(
            "commits  {} of {:.1} records; {} syncs, {} of them DSYNC writes",
            HumanCount(engine.commits),
            engine.records_per_commit,
            HumanCount(engine.syncs),
            HumanCount(engine.commits_dsync)
        ))?;
        output.line(format_args!(
            "gets     {:.1} % answered on the caller's thread, {:.1} % from the read cache of {}",
            engine.hop_free_percent,
            engine.read_cache_percent,
            HumanBytes(self.after.read_cache_bytes)
        ))?;
        output.line(format_args!(
            "keydir   {:.1} bytes a key; the process takes {}",
            engine.keydir_bytes_per_key,
            HumanBytes(self.resident_bytes)
        ))?;
        output.line(format_args!(
            "compact  {} times, {} became {}; writers were held back {:.2} s",
            engine.compactions,
            HumanBytes(engine.compaction_read_bytes),
            HumanBytes(engine.compaction_written_bytes),
            engine.throttled_seconds
        ))?;
        if let (Some(what), Some(done)) = (args.beside, self.beside) {
            output.line(format_args!(
                "beside   {}: {} times, of {} in all; the longest took {:.1} ms",
                what.name(),
                HumanCount(done.times),
                HumanCount(done.count),
                done.longest.as_secs_f64() * 1e3
            ))?;
        }
        if let Some(looked) = self.looked {
            print_looked(looked, output)?;
        }
        let Some(Reopened { keys, log_bytes, with_hints, without_hints }) = self.reopened else {
            return Ok(());
        };
        output.line(format_args!(
            "open     {} keys in {:.2} s with hints: {} keys/s; in {:.2} s without, from {}: {}/s",
            HumanCount(*keys),
            with_hints.as_secs_f64(),
            human_rate(*keys, *with_hints),
            without_hints.as_secs_f64(),
            HumanBytes(*log_bytes),
            HumanBytes(human_rate(*log_bytes, *without_hints).0)
        ))
    }
}

fn looked_json(looked: &Looked) -> Value {
    let seconds = |sorted: &[Duration], quantile| at(sorted, quantile).as_secs_f64();
    json!({
        "keys": looked.keys,
        "log_bytes": looked.log_bytes,
        "keys_only_keys_per_second": rate(looked.keys, at(&looked.keys_only, 0.5)),
        "with_values_keys_per_second": rate(looked.keys, looked.with_values),
        "scan_memory_bytes": looked.scan_memory,
        "prefix_keys": looked.prefix_keys,
        "prefix_p50_seconds": seconds(&looked.prefixes, 0.5),
        "prefix_p99_seconds": seconds(&looked.prefixes, 0.99),
        "snapshot_p50_seconds": seconds(&looked.snapshots, 0.5),
        "snapshot_max_seconds": seconds(&looked.snapshots, 1.0),
        "backup_seconds": looked.backup.as_secs_f64(),
        "backup_files": looked.backup_files,
    })
}

fn print_looked(looked: &Looked, output: &mut Output) -> Result<(), Failure> {
    let ms = |sorted: &[Duration], quantile| at(sorted, quantile).as_secs_f64() * 1e3;
    let keys_a_second = |quantile| human_rate(looked.keys, at(&looked.keys_only, quantile));
    output.line(format_args!(
        "scan     {} keys: {} keys/s ({} to {}), with values {}; at most {} of memory more",
        HumanCount(looked.keys),
        keys_a_second(0.5),
        keys_a_second(1.0),
        keys_a_second(0.0),
        human_rate(looked.keys, looked.with_values),
        HumanBytes(looked.scan_memory)
    ))?;
    output.line(format_args!(
        "prefix   of {:.1} keys: p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
        looked.prefix_keys,
        ms(&looked.prefixes, 0.5),
        ms(&looked.prefixes, 0.99),
        ms(&looked.prefixes, 1.0)
    ))?;
    output.line(format_args!(
        "moment   of {}: snapshot p50 {:.3} ms, max {:.3} ms; backup of {} files {:.1} ms",
        HumanBytes(looked.log_bytes),
        ms(&looked.snapshots, 0.5),
        ms(&looked.snapshots, 1.0),
        HumanCount(looked.backup_files),
        looked.backup.as_secs_f64() * 1e3
    ))
}

/// Zero if there is none.
#[expect(clippy::cast_sign_loss, reason = "a quantile is positive")]
fn at(sorted: &[Duration], quantile: f64) -> Duration {
    let index = (sorted.len().saturating_sub(1) as f64 * quantile).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
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
        "{name:<17} {:>13} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}",
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
