//! `stats`: what the store holds, and what opening it took.

use serde_json::{Map, Value, json};

use super::args::StoreArgs;
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::store::open_to_look;
use crate::{PartitionStats, Stats};

pub(super) async fn stats(store: &StoreArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let db = open_to_look(store).await?;
    let stats = db.stats();
    db.close().await?;
    if output.is_json() {
        output.json(&stats_json(&stats))?;
    } else {
        print_stats(&stats, output)?;
    }
    Ok(Outcome::Done)
}

fn stats_json(stats: &Stats) -> Value {
    let partitions: Vec<Value> =
        stats.partitions.iter().map(|partition| Value::Object(partition_json(partition))).collect();
    json!({
        "io": stats.io,
        "workers": stats.workers,
        "snapshots": stats.snapshots,
        "snapshot_bytes": stats.snapshot_bytes,
        "locked_bytes": stats.locked_bytes,
        "read_cache_bytes": stats.read_cache_bytes,
        "read_cache_hits": stats.read_cache_hits,
        "watchers": stats.watchers,
        "watch_events_queued": stats.watch_events_queued,
        "watch_bytes_queued": stats.watch_bytes_queued,
        "watch_events_missed": stats.watch_events_missed,
        "change_streams": stats.change_streams,
        "change_followers": stats.change_followers,
        "total": partition_json(&stats.total()),
        "partitions": partitions,
    })
}

fn partition_json(stats: &PartitionStats) -> Map<String, Value> {
    let counts = stats.counts().into_iter().map(|(name, count)| (name.to_owned(), count.into()));
    counts.chain([("poisoned".to_owned(), stats.poisoned.clone().into())]).collect()
}

fn print_stats(stats: &Stats, output: &mut Output) -> Result<(), Failure> {
    let total = stats.total();
    output.line(format_args!("{:<20} {:>16}", "io", stats.io))?;
    output.line(format_args!("{:<20} {:>16}", "workers", stats.workers))?;
    output.line(format_args!("{:<20} {:>16}", "partitions", stats.partitions.len()))?;
    for (name, count) in total.counts() {
        output.line(format_args!("{name:<20} {count:>16}"))?;
    }
    for (index, partition) in stats.partitions.iter().enumerate() {
        if let Some(why) = &partition.poisoned {
            output.line(format_args!("partition {index} takes no writes: {why}"))?;
        }
    }
    Ok(())
}
