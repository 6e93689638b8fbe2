//! `verify` and `repair`: a store that is not open, read whole, and made whole.

use std::path::Path;

use indicatif::{HumanCount, ProgressBar};
use serde_json::{Value, json};

use super::args::StoreArgs;
use super::failure::{Failure, Outcome};
use super::format::JsonText;
use super::output::Output;
use super::progress;
use super::store::{dir, options};
use crate::{Damage, RepairReport, VerifyReport};

pub(super) async fn verify(store: &StoreArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let is_sound = verify_at(store, dir(store)?, output).await?;
    Ok(if is_sound { Outcome::Done } else { Outcome::Damaged })
}

/// Reads the store at `path` and prints what was found; whether it is sound.
pub(super) async fn verify_at(
    store: &StoreArgs,
    path: &Path,
    output: &mut Output,
) -> Result<bool, Failure> {
    let progress = progress::bytes("verify", Some(0));
    let report = options(store)?.verify_with(path, show(&progress)).await;
    progress.finish_and_clear();
    let report = report?;
    print_findings(&report, output)?;
    if output.is_json() {
        output.json(&verify_summary(&report))?;
    } else {
        output.line(read_sentence(&report))?;
    }
    if !report.is_sound() {
        // Findings first: both may go to one terminal.
        output.flush()?;
        eprintln!("ringcask: {}: {}", path.display(), verdict(&report));
    }
    Ok(report.is_sound())
}

pub(super) async fn repair(store: &StoreArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let dir = dir(store)?;
    let progress = progress::bytes("repair", Some(0));
    let report = options(store)?.repair_with(dir, show(&progress)).await;
    progress.finish_and_clear();
    let report = report?;
    print_findings(&report.found, output)?;
    if output.is_json() {
        output.json(&repair_summary(&report))?;
    } else {
        print_repair(&report, output)?;
    }
    Ok(Outcome::Done)
}

pub(super) fn show(progress: &ProgressBar) -> impl Fn(u64, u64) + Send + Sync + 'static {
    let progress = progress.clone();
    move |done, total| {
        progress.set_length(total);
        progress.set_position(done);
    }
}

/// One line each.
fn print_findings(report: &VerifyReport, output: &mut Output) -> Result<(), Failure> {
    for damage in &report.damage {
        if output.is_json() {
            output.json(&damage_json(damage))?;
        } else {
            output.line(damage)?;
        }
    }
    if report.damage_omitted > 0 && !output.is_json() {
        output
            .line(format_args!("{} more ranges are damaged", HumanCount(report.damage_omitted)))?;
    }
    for newer in &report.newer {
        if output.is_json() {
            let path = path_text(&newer.path);
            output.json(&json!({ "finding": "newer", "path": path, "what": newer.what }))?;
        } else {
            output.line(newer)?;
        }
    }
    for hint in &report.hints_ignored {
        if output.is_json() {
            let path = path_text(&hint.path);
            output.json(&json!({ "finding": "hint", "path": path, "what": hint.what }))?;
        } else {
            output.line(hint)?;
        }
    }
    for stray in &report.strays {
        if output.is_json() {
            output.json(&json!({ "finding": "stray", "path": path_text(stray) }))?;
        } else {
            output.line(format_args!("{}: not listed, so it is never read", stray.display()))?;
        }
    }
    Ok(())
}

fn damage_json(damage: &Damage) -> Value {
    json!({
        "finding": "damage",
        "path": path_text(&damage.path),
        "offset": damage.offset,
        "len": damage.len,
        "probable_key": damage.key.as_deref().map(JsonText),
        "what": damage.what,
    })
}

fn verify_summary(report: &VerifyReport) -> Value {
    json!({
        "sound": report.is_sound(),
        "damaged_ranges": report.damage_count(),
        "newer_files": report.newer.len(),
        "strays": report.strays.len(),
        "hints": report.hints,
        "hints_missing": report.hints_missing,
        "hints_unjudged": report.hints_unjudged,
        "hints_ignored": report.hints_ignored.len(),
        "partitions": report.partitions,
        "files": report.files,
        "records": report.records,
        "bytes": report.bytes,
        "torn_bytes": report.torn_bytes,
        "misrouted_records": report.misrouted_records,
        "undecrypted_records": report.undecrypted_records,
    })
}

fn repair_summary(report: &RepairReport) -> Value {
    let paths = |paths: &[std::path::PathBuf]| -> Vec<String> {
        paths.iter().map(|path| path_text(path)).collect()
    };
    json!({
        "changed": report.is_changed(),
        "found": verify_summary(&report.found),
        "records_kept": report.records_kept,
        "records_lost": report.records_lost,
        "written": paths(&report.written),
        "set_aside": paths(&report.set_aside),
        "missing": paths(&report.missing),
        "hints_removed": paths(&report.hints_removed),
        "rebuilt": paths(&report.rebuilt),
        "warnings": report.warnings,
    })
}

fn read_sentence(report: &VerifyReport) -> String {
    let torn = match report.torn_bytes {
        0 => String::new(),
        bytes => format!("; {} bytes were torn off by a crash", HumanCount(bytes)),
    };
    format!(
        "read {} data files of {} partitions, {} bytes: {} records are sound{torn}",
        HumanCount(report.files),
        report.partitions,
        HumanCount(report.bytes),
        HumanCount(report.records),
    )
}

fn verdict(report: &VerifyReport) -> String {
    match (report.damage_count(), report.newer.len()) {
        (0, newer) => format!("{newer} files need a newer version of ringcask"),
        (1, _) => "damaged in one place; `ringcask repair` keeps what is sound".to_owned(),
        (count, _) => format!(
            "damaged in {} places; `ringcask repair` keeps what is sound",
            HumanCount(count)
        ),
    }
}

fn print_repair(report: &RepairReport, output: &mut Output) -> Result<(), Failure> {
    if !report.is_changed() {
        output.line("nothing to repair, nothing was changed")?;
        return output.line(read_sentence(&report.found));
    }
    for (paths, what) in [
        (&report.written, "written"),
        (&report.set_aside, "the damaged original, kept"),
        (&report.missing, "missing, no longer listed"),
        (&report.hints_removed, "a hint, removed"),
        (&report.rebuilt, "made anew"),
    ] {
        for path in paths {
            output.line(format_args!("{}: {what}", path.display()))?;
        }
    }
    for warning in &report.warnings {
        output.line(format_args!("warning: {warning}"))?;
    }
    output.line(format_args!(
        "repaired: {} records of damaged files are kept, {} are known to be lost",
        HumanCount(report.records_kept),
        HumanCount(report.records_lost),
    ))
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}
