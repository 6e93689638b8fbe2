//! Opening a store: choose how the disk is reached, find the directory, start the workers.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::directory::{open_directory, open_directory_to_read, random};
use super::keyspaces::Keyspaces;
use super::lifecycle::{IsAwaited, Lifecycle, StoreLock, check_awaited};
use super::read_cache::ReadCache;
use super::salvage::salvage;
use super::{Db, Handle, Shard, Shared, Space};
use crate::clock::ExpiryClock;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Driver, Fs, LockedMemory, descriptors_max, probe_uring, uring_denied_hint};
use crate::limits::OPEN_FILES_MAX_DEFAULT;
use crate::log::codec::{Codecs, Keyring};
use crate::log::data_file::{FileBounds, StoreIdentity};
use crate::log::manifest::Manifest;
use crate::mailbox::{Doorbell, Inbox, Mailbox, Peers, Ticks, Watchers, mailbox};
use crate::moment::Snapshots;
use crate::options::{
    Compaction, Durability, EncryptionKeys, Io, OnOpenProgress, OpenProgress, Options,
};
use crate::partition::recovery::{LoadProgress, Report, remove_strays};
use crate::partition::{PartitionConfig, ScrubRate};
use crate::report::RepairReport;
use crate::route::{KeyHasher, PartitionMap};
use crate::types::{KeyspaceId, PartitionId};
use crate::worker::{self, Batches, Loading, Opened, Setup, Signals, Ticker, WorkerPlan};

impl Options {
    /// Opens the store at `path`, creating it if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for a setting out of its
    /// bounds; `Locked` while another instance holds the store; `NotAStore` for a directory that
    /// holds something else, which is left untouched; `WrongKey` for an encrypted store whose key was not
    /// given, `FeatureMissing` for values that need a cargo feature of this build; `PartitionCount`, `NewerFormat`, `Corrupt`,
    /// `IoUringUnavailable`, `NoSpace` and `Io` as their names say. With [`Options::salvage`] those of
    /// [`Db::repair`](crate::Db::repair) too.
    ///
    /// # Cancellation
    /// If the future is dropped, the store is not opened: nothing is evicted, compacted or dropped on behalf of it. Until
    /// what was begun has ended, another open may find the store `Locked`.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<crate::Db> {
        let options = self;
        let path = path.as_ref().to_owned();
        options.check()?;
        let (sender, receiver) = futures::channel::oneshot::channel();
        let shown = path.clone();
        // On a thread of its own, because it blocks; whoever awaits it needs no runtime.
        std::thread::Builder::new()
            .name("ringcask-open".into())
            .spawn(move || {
                let opened = open_blocking(&options, &path, &|| !sender.is_canceled());
                // If the caller is gone the handle is dropped, which closes the store again.
                let _caller_is_gone = sender.send(opened);
            })
            .map_err(|source| Error::io("start a thread to open", &shown, source))?;
        receiver.await.unwrap_or_else(|_canceled| {
            Err(Error::new(ErrorKind::Io, "the thread that opened the store panicked"))
        })
    }
}

/// How often upkeep is told that time has passed.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How a store reaches its disk, once decided.
struct Access {
    fs: Fs,
    name: &'static str,
    driver: Box<dyn Fn() -> Driver>,
    /// Not on the simulated disk, where a run should depend on its seed and not on time.
    has_upkeep_timer: bool,
}

/// What to do about a store that does not open because it is damaged.
const DAMAGED_ADVICE: &str = "run `ringcask repair` or restore a backup";

fn open_blocking(options: &Options, path: &Path, is_awaited: IsAwaited<'_>) -> Result<Db> {
    let refused = match try_open(options, path, None, is_awaited) {
        Err(error) if error.is_corrupt() => error,
        opened => return opened,
    };
    if options.salvage {
        check_awaited(is_awaited)?;
        let report = salvage(options, path, &refused)?;
        try_open(options, path, report, is_awaited)
    } else {
        Err(refused.advise(DAMAGED_ADVICE))
    }
}

fn try_open(
    options: &Options,
    path: &Path,
    salvaged: Option<RepairReport>,
    is_awaited: IsAwaited<'_>,
) -> Result<Db> {
    check_awaited(is_awaited)?;
    let started = Instant::now();
    let mut access = choose_io(&options.io)?;
    let (root, manifest, lock) = if options.read_only {
        // Taking a lock that is not there yet is the one thing that may create a file.
        let opened = open_directory_to_read(&access.fs, options, path, is_awaited)?;
        access.fs = access.fs.read_only();
        opened
    } else {
        open_directory(&access.fs, options, path, is_awaited)?
    };
    let (mut shared, report) = start(options, &access, (root, manifest, lock), is_awaited)?;
    shared.salvaged = salvaged;
    tracing::info!(
        path = %shared.path.display(),
        partitions = shared.partitions.len(),
        workers = shared.worker_count,
        io = shared.io_name,
        files = report.files,
        hints = report.hints,
        records = report.records,
        keys = report.keys,
        torn_bytes = report.torn_bytes,
        elapsed_ms = started.elapsed().as_millis() as u64,
        records_per_s = (report.records as f64 / started.elapsed().as_secs_f64().max(1e-6)).round(),
        "store opened"
    );
    if !options.read_only {
        shared.finish_drops();
    }
    let shared = Arc::new(shared);
    let space = Space { id: KeyspaceId(0), default_ttl: options.default_ttl };
    Ok(Db { _handle: Arc::new(Handle(shared.clone())), space, shared })
}

fn choose_io(io: &Io) -> Result<Access> {
    let os = |name, driver: fn() -> Driver| Access {
        fs: io.fs(),
        name,
        driver: Box::new(driver),
        has_upkeep_timer: true,
    };
    match io {
        Io::Blocking => Ok(os("blocking", || Driver::Blocking)),
        Io::Memory(_) => Ok(os("memory", || Driver::Memory)),
        Io::Uring => match probe_uring() {
            Ok(()) => Ok(os("uring", || Driver::Uring)),
            Err(error) => Err(worker::ring_error(&error)),
        },
        Io::Auto => match probe_uring() {
            Ok(()) => Ok(os("uring", || Driver::Uring)),
            Err(error) => {
                tracing::warn!(
                    "io_uring is denied ({error}), so Ringcask falls back to plain system calls on \
                     helper threads; to get io_uring back: {}",
                    uring_denied_hint(&error)
                );
                Ok(os("blocking", || Driver::Blocking))
            }
        },
        #[cfg(any(test, feature = "sim"))]
        Io::Sim(disk) => {
            let disk = disk.clone();
            let driver = Box::new(move || Driver::Sim(disk.clone()));
            Ok(Access { fs: io.fs(), name: "sim", driver, has_upkeep_timer: false })
        }
    }
}

/// What all partitions of the store have in common.
fn partition_config(
    options: &Options,
    access: &Access,
    identity: &StoreIdentity,
    worker_count: usize,
    peers: Arc<Peers>,
) -> Result<PartitionConfig> {
    let partition_count = identity.partition_count as usize;
    Ok(PartitionConfig {
        identity: identity.clone(),
        open_id: u64::from_le_bytes(random()?),
        clock: options.clock.clone(),
        expiry: Arc::new(ExpiryClock::new(options.clock.clone())),
        codecs: Arc::new(options.codecs()),
        bounds: options.file_bounds(),
        capacity: options.capacity(),
        prewrite: options.prewrite && !access.fs.is_volatile(),
        compaction: compaction_of_worker(&options.compaction, worker_count),
        scrub: scrub_of_partition(options, access, partition_count),
        locked: locked_memory(options, &access.fs)?,
        open_files_max: (open_files_max(options) / partition_count).max(1),
        peers,
        watchers: Arc::new(Watchers::new(partition_count)),
        changes_retention: options.changes_retention(partition_count),
        snapshots: Arc::new(Snapshots::new(
            options.snapshot_bytes_max,
            options.snapshot_age_max,
            options.clock.clone(),
        )),
    })
}

/// Room for the files that are to be locked in memory.
fn locked_memory(options: &Options, fs: &Fs) -> Result<Option<Arc<LockedMemory>>> {
    let len = options.locked_bytes;
    let memory = fs.locked_memory(len).map_err(|error| {
        Error::invalid(format!(
            "locked_bytes is {len}, and this process may not lock so much memory ({error}); ask for less, or raise \
             its limit (RLIMIT_MEMLOCK: `ulimit -l`, or LimitMEMLOCK= of systemd)"
        ))
    })?;
    Ok(memory.map(Arc::new))
}

/// Starts the workers and waits until every partition is loaded; the first failure wins.
fn start(
    options: &Options,
    access: &Access,
    (root, manifest, lock): (PathBuf, Manifest, StoreLock),
    is_awaited: IsAwaited<'_>,
) -> Result<(Shared, Report)> {
    let identity = &StoreIdentity::of(&manifest);
    let (cores, partition_count) = (worker::available_cores(), identity.partition_count as usize);
    let worker_count = options.workers.unwrap_or(cores.len().max(1)).min(partition_count);
    let doorbells: Vec<Arc<Doorbell>> = (0..worker_count).map(|_| Arc::default()).collect();
    let peers = peers(&doorbells, partition_count);
    let config = partition_config(options, access, identity, worker_count, peers.clone())?;
    let (expiry, codecs) = (config.expiry.clone(), config.codecs.clone());
    let (watchers, snapshots) = (config.watchers.clone(), config.snapshots.clone());
    let locked = config.locked.clone();
    let map_epoch = identity.map_epoch;
    let setup = Setup { fs: access.fs.clone(), root: root.clone(), config };
    let (mailboxes, inboxes): (Vec<Arc<Mailbox>>, Vec<Inbox>) = (0..partition_count)
        .map(|partition| {
            let doorbell = &doorbells[partition % worker_count];
            mailbox(options.mailbox_requests_max, options.mailbox_bytes_max, doorbell)
        })
        .unzip();
    let mut plans: Vec<WorkerPlan> = doorbells
        .iter()
        .enumerate()
        .map(|(index, doorbell)| WorkerPlan {
            index,
            core: cores.get(index % cores.len().max(1)).copied().filter(|_| options.pin_workers),
            driver: (access.driver)(),
            doorbell: doorbell.clone(),
            partitions: Vec::new(),
        })
        .collect();
    for (partition, inbox) in inboxes.into_iter().enumerate() {
        plans[partition % worker_count].partitions.push((PartitionId(partition as u32), inbox));
    }

    let lifecycle = Arc::new(Lifecycle::new(lock, worker_count));
    let (loaded_sender, loaded) = crossbeam_channel::unbounded();
    let ((go_sender, go), (committed_sender, committed)) =
        (crossbeam_channel::bounded(worker_count), crossbeam_channel::bounded(worker_count));
    let signals = Signals { committed, go };
    for plan in plans {
        let ending = lifecycle.clone();
        let loaded = loaded_sender.clone();
        let spawned = worker::spawn(plan, setup.clone(), loaded, signals.clone(), move |outcome| {
            ending.worker_ended(outcome);
        });
        if let Err(source) = spawned {
            let error = Error::io("start a worker for", &root, source);
            lifecycle.worker_ended(Err(error.clone()));
            // Without a receiver to fill nobody is left to miss it.
            let _counted = loaded_sender.send(Err(error));
        }
    }
    drop(loaded_sender);
    let waits = Waits { loaded, committed: committed_sender, worker_count };
    let started =
        collect(&waits, partition_count, options.on_open_progress.as_ref()).and_then(|collected| {
            check_awaited(is_awaited)?;
            start_ticker(options, access, &root, doorbells, &lifecycle)?;
            Ok(collected)
        });
    let Collected { views, strays, report } = match started {
        Ok(started) => started,
        Err(error) => {
            // Workers leave when they find that nobody lets them go; until then they hold files, and
            // the lock, which whoever gets this error may want at once.
            drop((go_sender, waits));
            let _same_error = futures::executor::block_on(lifecycle.closed());
            return Err(error);
        }
    };
    remove_strays(&access.fs, &strays);
    for _worker in 0..worker_count {
        // A worker that ended meanwhile has closed its mailboxes, which its callers will learn.
        let _ended = go_sender.try_send(());
    }
    let (seen, instance) = (report.keyspace_max, manifest.instance);
    let keyspaces =
        Keyspaces::new(access.fs.clone(), root.clone(), manifest, seen, options.default_ttl);
    let partitions =
        mailboxes.into_iter().zip(views).map(|(mailbox, view)| Shard { mailbox, view }).collect();
    let shared = Shared {
        path: root,
        hasher: KeyHasher::new(&identity.hash_key),
        map: PartitionMap::new(identity.partition_count),
        partitions,
        durable: options.durability.of_write(),
        expiry,
        codecs,
        read_cache: ReadCache::new(options.read_cache_bytes),
        locked,
        key_len_max: options.key_len_max,
        value_len_max: options.value_len_max,
        batch_entries_max: options.batch_entries_max,
        batch_bytes_max: options.batch_bytes_max,
        io_name: access.name,
        worker_count,
        salvaged: None,
        keyspaces,
        lifecycle,
        peers,
        watchers,
        instance,
        map_epoch,
        snapshots,
        moment_turn: futures::lock::Mutex::new(()),
    };
    Ok((shared, report))
}

/// Tells the workers that time has passed, until the store closes.
fn start_ticker(
    options: &Options,
    access: &Access,
    root: &Path,
    doorbells: Vec<Arc<Doorbell>>,
    lifecycle: &Lifecycle,
) -> Result<()> {
    let mut schedules = Vec::new();
    if let Durability::Interval(interval) = options.durability {
        schedules.push((Ticks::SYNC, interval));
    }
    if access.has_upkeep_timer {
        schedules.push((Ticks::UPKEEP, UPKEEP_INTERVAL));
    }
    if !schedules.is_empty() {
        let ticker = Ticker::start(&schedules, doorbells)
            .map_err(|source| Error::io("start a timer for", root, source))?;
        lifecycle.keep(ticker);
    }
    Ok(())
}

impl Options {
    /// How records are stored, and read back.
    pub(crate) fn codecs(&self) -> Codecs {
        let EncryptionKeys { current, old } = &self.encryption;
        let keyring = Keyring::new(current.as_ref(), old);
        Codecs::new(self.compression, self.compression_len_min, keyring)
    }

    pub(super) fn file_bounds(&self) -> FileBounds {
        FileBounds { len_max: self.data_file_len_max, records_max: self.data_file_records_max }
    }
}

pub(super) fn open_files_max(options: &Options) -> usize {
    options.open_files_max.unwrap_or_else(|| (descriptors_max() / 2).min(OPEN_FILES_MAX_DEFAULT))
}

/// The rate is for all workers together, each of which has a thread for upkeep.
fn compaction_of_worker(settings: &Compaction, worker_count: usize) -> Compaction {
    let share = |rate: u64| (rate / worker_count as u64).max(1);
    Compaction { bytes_per_sec: settings.bytes_per_sec.map(share), ..settings.clone() }
}

/// The rate is for all partitions together.
fn scrub_of_partition(
    options: &Options,
    access: &Access,
    partition_count: usize,
) -> Option<ScrubRate> {
    let rate = options.scrub_bytes_per_sec.filter(|_| !options.read_only)?;
    let rate = (rate / partition_count as u64).max(1);
    Some(ScrubRate { bytes_per_sec: access.has_upkeep_timer.then_some(rate) })
}

/// What the workers have loaded.
struct Collected {
    views: Vec<Arc<crate::partition::PartitionView>>,
    strays: Vec<PathBuf>,
    report: Report,
}

/// The partitions as they reach each other, each by the doorbell of its worker.
fn peers(doorbells: &[Arc<Doorbell>], partition_count: usize) -> Arc<Peers> {
    let of_partition = |partition: usize| doorbells[partition % doorbells.len()].clone();
    Arc::new(Peers::new((0..partition_count).map(of_partition)))
}

/// How `open` and its workers wait for each other.
struct Waits {
    loaded: crossbeam_channel::Receiver<Result<Loading>>,
    committed: crossbeam_channel::Sender<Arc<HashSet<u64>>>,
    worker_count: usize,
}

impl Waits {
    /// Every partition is read: says which of the unsettled batches happened (BA1).
    fn settle(&self, batches: &Batches) {
        let unsettled: HashSet<u64> = batches.unsettled.iter().copied().collect();
        let decided = batches.decided.iter().copied();
        let committed = Arc::new(decided.filter(|batch| unsettled.contains(batch)).collect());
        for _worker in 0..self.worker_count {
            // One that has ended has said why.
            let _ended = self.committed.try_send(Arc::clone(&committed));
        }
    }
}

fn collect(
    waits: &Waits,
    partition_count: usize,
    on_progress: Option<&OnOpenProgress>,
) -> Result<Collected> {
    let mut views = vec![None; partition_count];
    let mut strays = Vec::new();
    let mut progress = vec![LoadProgress::default(); partition_count];
    let mut report = Report::default();
    let mut batches = Batches::default();
    let mut unread = waits.worker_count;
    let mut left = waits.worker_count;
    while left > 0 {
        let told = waits.loaded.recv().map_err(|_all_gone| {
            Error::new(ErrorKind::Io, "a worker ended before it had loaded its partitions")
        })??;
        match told {
            Loading::Progress { id, progress: of_partition } => {
                progress[id.0 as usize] = of_partition;
                if let Some(on_progress) = on_progress {
                    // Here and not on a worker: it is the caller's code (W7).
                    on_progress.call(total_of(&progress));
                }
            }
            Loading::Read(Batches { unsettled, decided }) => {
                batches.unsettled.extend(unsettled);
                batches.decided.extend(decided);
                unread -= 1;
                if unread == 0 {
                    waits.settle(&batches);
                }
            }
            Loading::Done(opened) => {
                left -= 1;
                for Opened { id, view, strays: of_partition, report: added } in opened {
                    strays.extend(of_partition);
                    report.add(&added);
                    views[id.0 as usize] = Some(view);
                }
            }
        }
    }
    Ok(Collected { views: views.into_iter().flatten().collect(), strays, report })
}

fn total_of(partitions: &[LoadProgress]) -> OpenProgress {
    let mut total = OpenProgress::default();
    for partition in partitions {
        total.files += partition.files;
        total.files_total += partition.files_total;
        total.records += partition.records;
    }
    total
}
