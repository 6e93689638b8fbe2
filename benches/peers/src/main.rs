//! Ringcask beside its peers, in one process run: every row in turns, one store after the other, medians, ratios.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --dir DIR --json FILE --html FILE
//! ```
//!
//! `--dir` has to be on the disk that is meant: in memory, syncs cost nothing.

mod keys;
mod machine;
mod peer;
mod peers;
mod report;
mod rows;
mod run;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::report::Report;
use crate::rows::Row;

/// Runs Ringcask and its peers in turns and prints the ratios.
#[derive(Parser)]
struct Args {
    /// Where the stores are made, one at a time; nothing is left behind.
    #[arg(long)]
    dir: PathBuf,
    /// Rows to run, by name or by number; default: all.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Peers to run beside Ringcask; default: all.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// How often each store has its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Records of the rows that read; the rows that write use a fifth of them.
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    records: u64,
    /// Writes everything that was measured.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page with bars; it needs no network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let rows: Vec<Row> = rows::all()
        .into_iter()
        .filter(|row| args.rows.is_empty() || args.rows.iter().any(|asked| row.is_named(asked)))
        .collect();
    if rows.is_empty() {
        let names: Vec<_> = rows::all().iter().map(|row| row.name).collect();
        bail!("--rows names none of the rows there are: {}", names.join(", "));
    }
    for asked in &args.peers {
        if !peers::NAMES.contains(&asked.as_str()) {
            bail!("--peers: there is no {asked}; there are {}", peers::NAMES.join(", "));
        }
    }
    std::fs::create_dir_all(&args.dir).with_context(|| format!("make {}", args.dir.display()))?;
    let plan = run::Plan {
        dir: &args.dir,
        turns: args.turns,
        seconds: args.seconds,
        records: args.records,
        peers: &args.peers,
    };
    let mut report = Report::begin(machine::describe(&args.dir), &plan);
    for row in &rows {
        let measured = run::row(row, &plan)?;
        report.add(row, measured);
        report.print_last();
        // After each row, so that a run that is stopped leaves what it has.
        if let Some(file) = &args.json {
            std::fs::write(file, serde_json::to_string_pretty(&report)?)
                .with_context(|| format!("write {}", file.display()))?;
        }
        if let Some(file) = &args.html {
            std::fs::write(file, report.html())
                .with_context(|| format!("write {}", file.display()))?;
        }
    }
    Ok(())
}
