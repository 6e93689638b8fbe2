//! `repartition`: another number of partitions for a store that is not open.

use indicatif::{HumanBytes, HumanCount};
use serde_json::json;

use super::args::StoreArgs;
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::progress;
use super::store::{dir, options};
use super::verify::show;
use crate::limits::PARTITIONS_MAX;

#[derive(clap::Args)]
pub(super) struct RepartitionArgs {
    /// How many there are to be.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(PARTITIONS_MAX)))]
    partitions: u32,
}

pub(super) async fn repartition(
    store: &StoreArgs,
    args: &RepartitionArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let dir = dir(store)?;
    let progress = progress::bytes("repartition", Some(0));
    let ended = options(store)?.repartition_with(dir, args.partitions, show(&progress)).await;
    progress.finish_and_clear();
    let report = ended?;
    if output.is_json() {
        output.json(&json!({
            "partitions_before": report.partitions_before,
            "partitions_after": report.partitions_after,
            "keys_moved": report.keys_moved,
            "keys_kept": report.keys_kept,
            "bytes_moved": report.bytes_moved,
        }))?;
    } else if report.partitions_before == report.partitions_after {
        let count = report.partitions_after;
        output.line(format_args!("the store has {count} partitions already, nothing was moved"))?;
    } else {
        output.line(format_args!(
            "from {} partitions to {}: {} keys moved, {} written, {} keys stayed",
            report.partitions_before,
            report.partitions_after,
            HumanCount(report.keys_moved),
            HumanBytes(report.bytes_moved),
            HumanCount(report.keys_kept),
        ))?;
    }
    Ok(Outcome::Done)
}
