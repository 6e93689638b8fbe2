//! The `ringcask` command line, as a module of the library so that the binary is wiring only.
//!
//! ## Invariants
//! - **C1** A command that only looks never creates a store.
//! - **C2** Whatever bytes a key or value has, they come out as they went in: raw on standard input
//!   and output, reversibly encoded in lines (see [`format`]).
//! - **C3** No input makes memory grow without bound: lines, values and puts in flight are limited.

mod args;
mod backup;
mod bench;
mod changes;
mod compact;
mod dump;
mod expiry;
mod failure;
mod format;
mod input;
mod inspect;
mod keyspaces;
mod load;
mod output;
mod point;
mod progress;
mod repartition;
mod scan;
mod stats;
mod store;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use futures::executor::block_on;
use tracing_subscriber::EnvFilter;

use self::args::{Args, Command};
use self::failure::{Failure, Outcome};
use self::output::Output;

/// Variable that says what the engine's events are filtered by, as `ringcask=debug`.
const LOG_FILTER_VARIABLE: &str = "RINGCASK_LOG";

/// Runs the command that the process was started with; the exit code is 0 when it is done, 1 when
/// it failed, a key was not there or a store is damaged, 2 when the arguments made no sense.
pub fn main() -> ExitCode {
    let args = Args::parse();
    show_events(args.verbose);
    let mut output = Output::new(args.json);
    let ran = block_on(run(&args, &mut output));
    match ran.and_then(|outcome| output.flush().map(|()| outcome)) {
        // Whoever closed the pipe has read all it wanted, as `head` does.
        Ok(Outcome::Done) | Err(Failure::PipeClosed) => ExitCode::SUCCESS,
        Ok(Outcome::NotFound | Outcome::Damaged) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("ringcask: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(args: &Args, output: &mut Output) -> Result<Outcome, Failure> {
    let store = &args.store;
    match &args.command {
        Command::Put(put) => point::put(store, put, output).await,
        Command::Get(get) => point::get(store, get, output).await,
        Command::Del(del) => point::del(store, del, output).await,
        Command::Clear(clear) => keyspaces::clear(store, clear, output).await,
        Command::Exists(exists) => point::exists(store, exists, output).await,
        Command::Expire(expire) => expiry::expire(store, expire, output).await,
        Command::Ttl(ttl) => expiry::ttl(store, ttl, output).await,
        Command::Persist(persist) => expiry::persist(store, persist, output).await,
        Command::Incr(incr) => point::incr(store, incr, output).await,
        Command::Scan(scan) => scan::scan(store, scan, output).await,
        Command::Count(count) => scan::count(store, count, output).await,
        Command::Changes(changes) => changes::changes(store, changes, output).await,
        Command::Keyspaces => keyspaces::list(store, output).await,
        Command::DropKeyspace(drop) => keyspaces::drop_one(store, drop, output).await,
        Command::Stats => stats::stats(store, output).await,
        Command::Compact => compact::compact(store, output).await,
        Command::Sync => compact::sync(store, output).await,
        Command::Load(load) => load::load(store, load, output).await,
        Command::Dump(dump) => dump::dump(store, dump, output).await,
        Command::Backup(backup) => backup::backup(store, backup, output).await,
        Command::Restore(restore) => backup::restore(store, restore, output).await,
        Command::Verify => verify::verify(store, output).await,
        Command::Repair => verify::repair(store, output).await,
        Command::Repartition(args) => repartition::repartition(store, args, output).await,
        Command::Inspect(inspect) => inspect::inspect(store, inspect, output),
        Command::Bench(bench) => bench::bench(store, bench, output).await,
    }
}

/// The engine's events go to standard error, so that standard output stays data.
fn show_events(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter =
        EnvFilter::try_from_env(LOG_FILTER_VARIABLE).unwrap_or_else(|_unset| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
}
