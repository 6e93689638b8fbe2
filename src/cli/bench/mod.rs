//! `bench`: puts a number of records, then runs a mix of operations from many tasks.

mod beside;
mod clients;
mod directory;
mod keys;
mod look;
mod memory;
mod page;
mod reopen;
mod report;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use self::beside::{Beside, run_beside};
use self::clients::{Limit, Mix, Shares, WriteKind, run_mix};
use self::directory::{BenchDirectory, open};
use self::keys::{Distribution, Values, key};
use self::report::{LoadPhase, Report};
use super::args::{CompressionArgs, DurabilityArg, StoreArgs};
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::progress;
use super::store::options;
use crate::limits::VALUE_LEN_MAX;
use crate::{Compaction, Compression, Db};

/// Records between two updates of the progress bar.
const LOAD_STEP: u64 = 1024;

#[derive(clap::Args)]
#[command(after_help = "\
Without --dir the store is made in the system's temporary directory and removed afterwards; where \
that is held in memory, syncs cost nothing, so name a directory on the disk that you mean. A \
directory that holds anything but an earlier bench's store is refused.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct BenchArgs {
    /// Records that are put first, and then read and replaced.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Put no records: an earlier bench has put them.
    #[arg(long, conflicts_with = "memory")]
    no_load: bool,
    /// Tasks that each have one operation under way.
    #[arg(long, value_name = "COUNT", default_value_t = 64,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    clients: u64,
    /// Bytes of a value. Default: 100, or 1,000 with --workload.
    #[arg(long, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(..=VALUE_LEN_MAX as u64))]
    value_size: Option<u64>,
    /// One of the mixes of YCSB, instead of --reads and --op; picks records by zipf if nothing else is said.
    #[arg(long, value_enum, ignore_case = true, conflicts_with_all = ["reads", "op"])]
    workload: Option<Workload>,
    /// How long the mix runs.
    #[arg(long, default_value_t = 10, conflicts_with = "operations")]
    seconds: u64,
    /// How many operations the mix has, instead of how long it runs.
    #[arg(long, value_name = "COUNT")]
    operations: Option<u64>,
    /// Gets among the operations; the others are what `--op` says.
    #[arg(long, value_name = "PERCENT", default_value_t = 50,
          value_parser = clap::value_parser!(u8).range(..=100))]
    reads: u8,
    /// What the operations are that are not gets.
    #[arg(long, value_enum, default_value_t = WriteKind::Put)]
    op: WriteKind,
    /// When a write of the mix is done.
    #[arg(long, value_enum, default_value_t = DurabilityArg::Sync)]
    durability: DurabilityArg,
    /// Which records the mix picks. Default: uniform, or what the workload has.
    #[arg(long, value_enum)]
    distribution: Option<DistributionArg>,
    /// Operations a second that are begun by the clock, at most one for each client at a time; their
    /// latencies count from when they were due. Default: each client begins one when the one before is
    /// done.
    #[arg(long, value_name = "OPERATIONS", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Leave dead records where they are.
    #[arg(long)]
    no_compaction: bool,
    /// Keep so many bytes of records that were read in memory.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    read_cache: u64,
    /// Lock so many bytes of files in memory.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    locked: u64,
    /// Threads that the clients are spread over. Default: one a core.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=4096))]
    threads: Option<u64>,
    /// After the mix, close the store and time opening it: with its hints, and after they were removed.
    #[arg(long)]
    recovery: bool,
    /// Before the mix, and before each opening that is timed, have the page cache forget the store's files.
    #[arg(long, conflicts_with = "memory")]
    cold: bool,
    /// Do this again and again while the mix runs.
    #[arg(long, value_enum)]
    beside: Option<Beside>,
    /// After the mix, time scans of all keys and of a prefix, the beginning of a snapshot, and a backup.
    #[arg(long)]
    look: bool,
    /// Write a page with plots; it needs no network to be looked at.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Hold the store in memory, without any disk.
    #[arg(long, conflicts_with = "recovery")]
    memory: bool,
    #[command(flatten)]
    compression: CompressionArgs,
}

/// The core workloads of YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", 2010).
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Half gets, half puts.
    A,
    /// 95 % gets, 5 % puts.
    B,
    /// Gets.
    C,
    /// 95 % gets, of the newest records most often; 5 % new records.
    D,
    /// 95 % scans of 1 to 100 records, 5 % new records.
    E,
    /// Half gets, half gets with a put of the same record.
    F,
}

impl Workload {
    fn name(self) -> char {
        match self {
            Workload::A => 'A',
            Workload::B => 'B',
            Workload::C => 'C',
            Workload::D => 'D',
            Workload::E => 'E',
            Workload::F => 'F',
        }
    }

    fn shares(self) -> Shares {
        let (gets, scans, read_modify_writes) = match self {
            Workload::A => (50, 0, 0),
            Workload::B | Workload::D => (95, 0, 0),
            Workload::C => (100, 0, 0),
            Workload::E => (0, 95, 0),
            Workload::F => (50, 0, 50),
        };
        Shares { gets, scans, read_modify_writes }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum DistributionArg {
    /// All equally often.
    Uniform,
    /// Few very often: Zipf with exponent 0.99, scattered over the keys.
    Zipf,
    /// The same, of the records that were put last.
    Latest,
}

impl DistributionArg {
    fn name(self) -> &'static str {
        match self {
            DistributionArg::Uniform => "uniform",
            DistributionArg::Zipf => "zipf",
            DistributionArg::Latest => "latest",
        }
    }
}

pub(super) async fn bench(
    store: &StoreArgs,
    args: &BenchArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let directory = BenchDirectory::choose(store.dir.as_deref().filter(|_| !args.memory))?;
    let compaction = if args.no_compaction { Compaction::off() } else { Compaction::new() };
    let options = options(store)?.compaction(compaction).compression(args.compression.compression);
    let options = options.read_cache_bytes(args.read_cache).locked_bytes(args.locked);
    let options = if args.memory { options.in_memory() } else { options };
    let db = open(options.clone(), &directory).await?;
    let values =
        Values::new(args.value_len() as usize, args.compression.compression != Compression::None);
    let load = if args.no_load {
        check_loaded(&db, &directory, args.records).await?
    } else {
        load_records(&db, args.records, &values).await?
    };
    let mix = Mix {
        db: &db,
        values: &values,
        distribution: match args.distribution() {
            DistributionArg::Uniform => Distribution::uniform(args.records),
            DistributionArg::Zipf => Distribution::zipf(args.records),
            DistributionArg::Latest => Distribution::latest(args.records),
        },
        write: args.write(),
        durability: args.durability.into(),
        shares: args.shares(),
        records: args.records,
        end: AtomicU64::new(args.records),
        clients: args.clients,
        threads: args.threads(),
        limit: match args.operations {
            Some(count) => Limit::Operations(count),
            None => Limit::Time(Duration::from_secs(args.seconds)),
        },
        rate: args.rate.map(|rate| rate as f64),
    };
    if args.cold {
        directory.make_cold(&db).await?;
    }
    let before = db.stats().total();
    let (mixed, beside) = run_beside(args.beside, &db, directory.path(), || run_mix(&mix))?;
    let after = db.stats();
    let looked = if args.look { Some(look::measure(&db, directory.path()).await?) } else { None };
    let resident_bytes = memory::resident_bytes();
    db.close().await?;
    let reopened = if args.recovery {
        Some(reopen::measure(&options, &directory, args.cold).await?)
    } else {
        None
    };
    let report = Report {
        args,
        dir: directory.path(),
        load: &load,
        mixed: &mixed,
        before: &before,
        after: &after,
        beside: beside.as_ref(),
        looked: looked.as_ref(),
        resident_bytes,
        reopened: reopened.as_ref(),
    };
    report.print(output)?;
    if let Some(file) = &args.html {
        let written = std::fs::write(file, page::page(&report));
        written.map_err(|error| Failure::io(format_args!("write {}", file.display()), &error))?;
    }
    Ok(Outcome::Done)
}

impl BenchArgs {
    fn value_len(&self) -> u64 {
        self.value_size.unwrap_or(if self.workload.is_some() { 1000 } else { 100 })
    }

    fn distribution(&self) -> DistributionArg {
        self.distribution.unwrap_or(match self.workload {
            None => DistributionArg::Uniform,
            Some(Workload::D) => DistributionArg::Latest,
            Some(_) => DistributionArg::Zipf,
        })
    }

    fn shares(&self) -> Shares {
        match self.workload {
            Some(workload) => workload.shares(),
            None => Shares { gets: self.reads.into(), scans: 0, read_modify_writes: 0 },
        }
    }

    fn write(&self) -> WriteKind {
        match self.workload {
            Some(Workload::D | Workload::E) => WriteKind::Insert,
            Some(_) => WriteKind::Put,
            None => self.op,
        }
    }

    /// What the mix is made of, in words.
    fn mix_words(&self) -> String {
        let Shares { gets, .. } = self.shares();
        match self.workload {
            Some(workload) => format!("YCSB {}", workload.name()),
            None => format!("{gets} % gets"),
        }
    }

    /// No more than there are clients.
    fn threads(&self) -> u64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        self.threads.unwrap_or(cores).min(self.clients)
    }
}

/// As a load that had nothing left to do.
async fn check_loaded(
    db: &Db,
    directory: &BenchDirectory,
    records: u64,
) -> Result<LoadPhase, Failure> {
    // The last one is put last.
    if !db.contains_key(key(records - 1)).await? {
        return Err(Failure::Failed(format!(
            "{}: no bench has put {records} records here; leave out --no-load, or say fewer --records",
            directory.path().display()
        )));
    }
    Ok(LoadPhase { records: 0, elapsed: Duration::ZERO })
}

/// In bulk, because only the mix is about latency.
async fn load_records(db: &Db, records: u64, values: &Values) -> Result<LoadPhase, Failure> {
    let progress = progress::records("load", records);
    let started = Instant::now();
    let all = (0..records).map(|index| {
        if (index + 1).is_multiple_of(LOAD_STEP) {
            progress.inc(LOAD_STEP);
        }
        (key(index), values.get(index))
    });
    db.load(all).await?;
    progress.finish_and_clear();
    Ok(LoadPhase { records, elapsed: started.elapsed() })
}
