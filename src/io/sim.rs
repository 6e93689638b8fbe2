//! A disk in memory that forgets what was not synced, and fails where a test wants it to.
//!
//! A store that runs on a [`SimDisk`] can be stopped before any single operation, its power cut,
//! and what survives opened again: the same code paths as on a real disk, in microseconds, and the
//! same every time for the same seed (from one thread; threads that race still race).
//!
//! ## The model
//! - **Q1** A write changes what readers see at once and what a power cut leaves not at all. A sync
//!   makes the whole file durable as it was when the sync was *submitted*: writes still under way
//!   then are not covered, as on a ring.
//! - **Q2** A DSYNC write makes its own range durable, and the length up to its end. Bytes before
//!   it that were never synced read as zeros after a power cut.
//! - **Q3** Creations, renames and removals are volatile until their directory is synced. A rename
//!   is never seen half done.
//! - **Q4** Sectors of 512 bytes reach the disk in any order and any subset, each with the content
//!   of some moment after the last sync; the last one may be torn in the middle.
//! - **Q5** A failed sync loses its writes: they stay visible, and no later sync makes them durable. The next
//!   sync through each other descriptor that is open then fails too, and none after that.
//! - **Q6** Operations on one file take effect in order of submission, a few polls later;
//!   operations on different files overlap.
//!
//! What is not modelled: bytes that rot by themselves (see [`SimDisk::flip`]), links, permissions.

mod contents;
mod cut;
mod end;
mod faults;
mod file;
mod fingerprint;
mod moments;
mod names;
mod op;
mod random;
mod state;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::fs::{DirEntry, Sharing};
pub use crate::clock::SimClock;
pub use cut::{Cut, KeptBytes, KeptNames};
pub(super) use file::{SimFile, SimLock};
pub use moments::{Moment, OpKind};
pub(super) use op::{read, sync, take_a_turn, write};
use state::State;

/// A simulated disk. A clone is the same disk.
///
/// Paths are keys like `/store/MANIFEST`; `/` exists. Operations that change something are
/// numbered from 0, see [`ops`](Self::ops); a test runs a workload once to count them, and then
/// once for each number with [`crash_at`](Self::crash_at).
///
/// # Example: what is not synced is gone
/// ```
/// use ringcask::sim::{Cut, SimDisk};
///
/// let disk = SimDisk::new(1);
/// disk.write_file("/greeting", b"hello").unwrap(); // durable by itself
/// disk.truncate("/greeting", 4).unwrap(); // not durable
///
/// assert_eq!(disk.read_file("/greeting").unwrap(), b"hell");
/// let after = disk.power_cut(Cut::DropUnsynced);
/// assert_eq!(after.read_file("/greeting").unwrap(), b"hello");
/// assert_eq!(disk.kill().read_file("/greeting").unwrap(), b"hell");
/// ```
#[derive(Clone)]
pub struct SimDisk {
    /// Held for the length of one operation, by whichever thread does it.
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("SimDisk")
            .field("ops", &state.ops)
            .field("crashed", &state.faults.crashed)
            .finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk. The seed decides delays and the chances of [`short_transfers`](Self::short_transfers)
    /// and [`would_block`](Self::would_block).
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::of(State::new(seed))
    }

    fn of(state: State) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Heads or tails, by the seed.
    pub(super) fn toss(&self) -> bool {
        self.state().random.chance(0.5)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// How many operations have changed something, or tried to: writes (each transfer of one),
    /// syncs, creations, renames, removals, length changes, directory syncs.
    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// How many times data was read, not counted in [`ops`](Self::ops).
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// How many times an existing file was opened, not counted in [`ops`](Self::ops).
    pub fn opens(&self) -> u64 {
        self.state().opens
    }

    /// How many changes of bytes, and how many of names, a power cut could take back now: the most that
    /// [`KeptBytes::First`] and [`KeptNames::First`] count to.
    pub fn unsynced(&self) -> (usize, usize) {
        self.state().unsynced()
    }

    /// A number that is the same for two disks on which the same is seen, if both came from one disk, and
    /// else practically never. What is durable does not count.
    pub fn fingerprint(&self) -> u64 {
        self.state().fingerprint()
    }

    /// Keeps from now on, of every operation, the disk as it is just before: every crash there can be, from
    /// one run. Ends with the next crash.
    pub fn record(&self) {
        self.state().moments.get_or_insert_default();
    }

    /// What [`record`](Self::record) has kept, in order; from here on nothing is kept. If recording began with
    /// operation 0, the index is the number of the operation.
    pub fn moments(&self) -> Vec<Moment> {
        self.state().moments.take().unwrap_or_default()
    }

    /// Makes operation number `op`, and whatever comes after it, fail with `EIO` and do nothing.
    pub fn crash_at(&self, op: u64) {
        self.state().faults.crash_at = Some(op);
    }

    /// Whether the operation given to [`crash_at`](Self::crash_at) was reached.
    pub fn crashed(&self) -> bool {
        self.state().faults.crashed
    }

    /// A new disk with what survives a power cut now. This one stays as it is.
    ///
    /// The new disk counts from 0, has no faults and no locks, and everything on it is durable.
    #[must_use]
    pub fn power_cut(&self, policy: Cut) -> SimDisk {
        SimDisk::of(self.state().power_cut(policy))
    }

    /// A new disk with what a killed process leaves: everything visible, still unsynced.
    ///
    /// The new disk counts from 0 and has no faults and no locks.
    #[must_use]
    pub fn kill(&self) -> SimDisk {
        SimDisk::of(self.state().kill())
    }

    /// Makes operation number `nth` fail with `errno`, and if `forever` all later ones too. May be
    /// called several times. A sync that fails this way loses its writes.
    pub fn fail_op(&self, nth: u64, errno: i32, forever: bool) {
        self.state().faults.fail_op(nth, errno, forever);
    }

    /// Makes operation number `nth`, if it is a write, fail with `errno` although all of it is done: the
    /// error of a device that was too slow to say so.
    pub fn fail_late(&self, nth: u64, errno: i32) {
        self.state().faults.fail_late(nth, errno);
    }

    /// Makes the next sync fail with `errno`, or if `forever` every one: of a file or directory,
    /// and the sync half of a DSYNC write.
    pub fn fail_syncs(&self, errno: i32, forever: bool) {
        self.state().faults.syncs = Some((errno, forever));
    }

    /// Makes every read of data fail with `errno`.
    pub fn fail_reads(&self, errno: i32) {
        self.fail_read(0, errno, true);
    }

    /// Makes read number `nth`, counted as in [`reads`](Self::reads), fail with `errno`, and if `forever` all
    /// later ones too.
    pub fn fail_read(&self, nth: u64, errno: i32, forever: bool) {
        self.state().faults.fail_read(nth, errno, forever);
    }

    /// Makes number `nth` of [`opens`](Self::opens) fail with `errno`, and if `forever` all later ones too.
    pub fn fail_open(&self, nth: u64, errno: i32, forever: bool) {
        self.state().faults.fail_open(nth, errno, forever);
    }

    /// Makes operation number `nth`, if it is a write of several bytes, transfer only some of them.
    pub fn shorten_op(&self, nth: u64) {
        self.state().faults.shorten_op(nth);
    }

    /// Limits the bytes in all files together; what exceeds it fails with `ENOSPC`, after the part
    /// that fitted. Removing and cutting files gives space back.
    pub fn capacity_bytes(&self, capacity: Option<u64>) {
        self.state().faults.capacity = capacity;
    }

    /// The chance, 0 to 1, that a transfer moves only some of its bytes and is continued.
    pub fn short_transfers(&self, ratio: f64) {
        self.state().faults.short_transfers = ratio;
    }

    /// The chance, 0 to 1, that a read that may not wait would have to.
    pub fn would_block(&self, ratio: f64) {
        self.state().faults.would_block = ratio;
    }

    /// No file gets a second name, as if every directory was on a file system of its own.
    pub fn refuse_links(&self) {
        self.state().faults.no_links = true;
    }

    /// Bytes that may still be written.
    pub(super) fn free_bytes(&self) -> u64 {
        self.state().free_bytes()
    }

    /// Syncs that are waited for through a ring, and writes that sync, do not end until this is called with false: a
    /// drive that hangs.
    pub fn stall_syncs(&self, stalled: bool) {
        self.state().faults.syncs_stalled = stalled;
    }

    /// How many files have a sync that is stalled.
    pub fn stalled(&self) -> usize {
        self.state().stalled()
    }

    /// Takes back every fault, the capacity included. A crash that happened stays.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// The visible bytes of a file; `None` if there is none of this path. Works after a crash too.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let state = self.state();
        let id = state.resolve(path.as_ref()).ok()?;
        state.contents(id).ok().map(|contents| contents.visible().to_vec())
    }

    /// Makes the file hold exactly `bytes`, durably, under a durable name. Not an operation:
    /// neither counted nor subject to faults.
    ///
    /// # Errors
    /// If the parent is missing or the path is a directory.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        self.state().plant(path.as_ref(), bytes)
    }

    /// Removes a file, durably, and with it whatever else changed in its directory. Not an operation:
    /// neither counted nor subject to faults.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn remove(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.state().uproot(path.as_ref())
    }

    /// The names in a directory, sorted; empty if there is no such directory.
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = self.state().list(path.as_ref()).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect()
    }

    /// Flips the bits of `mask` in one byte, in memory and on the disk, as rot or a bug would.
    ///
    /// # Errors
    /// If there is no such file, or it ends before `offset`.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state();
        let id = state.resolve(path.as_ref())?;
        state.contents_mut(id)?.flip(offset, mask)
    }

    /// Cuts or extends a file without syncing it. Not an operation: neither counted nor subject
    /// to faults.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn truncate(&self, path: impl AsRef<Path>, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let id = state.resolve(path.as_ref())?;
        state.resize(id, len)
    }
}

/// What the synchronous face asks of the disk; the counterparts of system calls.
impl SimDisk {
    pub(super) fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.state().create_dir_all(path)
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        state.faults.check_alive()?;
        state.list(path)
    }

    pub(super) fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        state.faults.check_alive()?;
        match state.resolve(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn create_new(&self, path: &Path) -> io::Result<SimFile> {
        let handle = self.state().create_file(path)?;
        Ok(SimFile::opened(self.clone(), handle, true))
    }

    pub(super) fn create_truncated(&self, path: &Path) -> io::Result<SimFile> {
        let mut state = self.state();
        let handle = match state.resolve(path) {
            Ok(_) => {
                let handle = state.open_file(path)?;
                state.set_len(handle.inode, 0).inspect_err(|_| state.close(handle))?;
                handle
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.create_file(path)?,
            Err(error) => return Err(error),
        };
        drop(state);
        Ok(SimFile::opened(self.clone(), handle, true))
    }

    pub(super) fn open(&self, path: &Path, writable: bool) -> io::Result<SimFile> {
        let handle = self.state().open_file(path)?;
        Ok(SimFile::opened(self.clone(), handle, writable))
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().rename(from, to)
    }

    pub(super) fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().hard_link(from, to)
    }

    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.state().remove_file(path)
    }

    pub(super) fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.state().remove_dir(path)
    }

    pub(super) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.state().sync_dir(path)
    }

    pub(super) fn lock(&self, path: &Path, sharing: Sharing) -> io::Result<Option<SimLock>> {
        let mut state = self.state();
        let handle = match state.resolve(path) {
            Ok(_) => state.open_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.create_file(path)?,
            Err(error) => return Err(error),
        };
        let taken = state.locks.take(handle.inode, sharing);
        if !taken {
            state.close(handle);
        }
        drop(state);
        Ok(taken.then(|| SimLock::taken(self.clone(), handle)))
    }
}

/// Where a path leads: the directory that has the name, and the name.
fn split(path: &Path) -> io::Result<(&Path, OsString)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name.to_owned())),
        _ => Err(rustix::io::Errno::INVAL.into()),
    }
}
