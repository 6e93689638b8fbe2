//! Everything a simulated disk knows, behind its one lock, and the operations that change it.
//!
//! Every changing operation checks its path first and then calls [`State::begin`], which numbers
//! it and lets the faults decide; what follows cannot fail, except for want of space.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use rustix::io::Errno;

use super::contents::{ChangeId, Contents};
use super::faults::Faults;
use super::moments::{Moment, OpKind};
use super::names::{InodeId, Names, ROOT};
use super::op::{Entry, Outcome, Ticket};
use super::random::Random;
use super::split;
use crate::io::fs::DirEntry;
use crate::io::locks::Locks;

pub(super) struct State {
    pub(super) ops: u64,
    pub(super) reads: u64,
    pub(super) opens: u64,
    /// What was kept of each operation, if somebody wants to see them.
    pub(super) moments: Option<Vec<Moment>>,
    pub(super) faults: Faults,
    pub(super) random: Random,
    pub(super) locks: Locks<InodeId>,
    /// Results of asynchronous operations that nobody polled since.
    pub(super) outcomes: BTreeMap<Ticket, Outcome>,
    pub(super) ticket_last: Ticket,
    handle_last: HandleId,
    pub(super) names: Names,
    pub(super) inodes: BTreeMap<InodeId, Inode>,
    pub(super) inode_last: InodeId,
    pub(super) change_last: ChangeId,
    /// Bytes in files that have a name.
    used: u64,
}

/// One opening of a file.
pub(super) type HandleId = u64;

/// A file that was opened.
#[derive(Clone, Copy)]
pub(super) struct Handle {
    pub(super) inode: InodeId,
    pub(super) id: HandleId,
}

pub(super) struct Inode {
    /// `None` for a directory. Shared with the disks that came from this one, until it changes.
    pub(super) contents: Option<Arc<Contents>>,
    /// Open files, which keep a file without a name alive; each with the failed sync of another one that
    /// it has not been told of (Q5).
    handles: BTreeMap<HandleId, Option<Errno>>,
    /// Whether its bytes count as used.
    named: bool,
    pub(super) queue: VecDeque<Entry>,
}

impl Inode {
    pub(super) fn new(contents: Option<Arc<Contents>>) -> Inode {
        Inode { contents, handles: BTreeMap::new(), named: true, queue: VecDeque::new() }
    }
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        let root = BTreeMap::from([(ROOT, Inode::new(None))]);
        State::from_parts(Random::new(seed), Names::default(), root, ROOT, 0)
    }

    pub(super) fn from_parts(
        random: Random,
        names: Names,
        inodes: BTreeMap<InodeId, Inode>,
        inode_last: InodeId,
        change_last: ChangeId,
    ) -> State {
        let mut state = State {
            ops: 0,
            reads: 0,
            opens: 0,
            moments: None,
            faults: Faults::default(),
            random,
            locks: Locks::default(),
            outcomes: BTreeMap::new(),
            ticket_last: 0,
            handle_last: 0,
            names,
            inodes,
            inode_last,
            change_last,
            used: 0,
        };
        state.recount();
        state
    }

    /// Forgets inodes that nothing can reach, and counts the bytes of those with a name.
    fn recount(&mut self) {
        let reachable = self.names.reachable();
        self.inodes.retain(|id, inode| {
            !inode.handles.is_empty()
                || !inode.queue.is_empty()
                || reachable.binary_search(id).is_ok()
        });
        self.used = 0;
        let named = self.names.visible_ids();
        for (id, inode) in &mut self.inodes {
            inode.named = named.binary_search(id).is_ok();
            if let (true, Some(contents)) = (inode.named, &inode.contents) {
                self.used += contents.len();
            }
        }
    }

    /// Numbers an operation that changes something, and fails it if it is to fail. Returns its number.
    fn begin(&mut self, kind: OpKind, id: InodeId, name: Option<&OsStr>) -> io::Result<u64> {
        let index = self.ops;
        if self.moments.is_some() && !self.faults.crashed {
            let moment = Moment::new(kind, self.names.path_of(id, name), self.kill());
            self.moments.get_or_insert_default().push(moment);
        }
        self.ops += 1;
        self.faults.check_op(index)?;
        Ok(index)
    }

    fn next_change(&mut self) -> ChangeId {
        self.change_last += 1;
        self.change_last
    }

    /// The newest change that has taken effect: what a sync submitted now will cover (Q1).
    pub(super) fn change_last(&self) -> ChangeId {
        self.change_last
    }

    pub(super) fn resolve(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = ROOT;
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    self.check_dir(at)?;
                    at = self.names.get(at, name).ok_or(Errno::NOENT)?;
                }
                Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL.into()),
            }
        }
        Ok(at)
    }

    fn check_dir(&self, id: InodeId) -> io::Result<()> {
        match self.inodes.get(&id) {
            Some(Inode { contents: None, .. }) => Ok(()),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    pub(super) fn contents(&self, id: InodeId) -> io::Result<&Contents> {
        let inode = self.inodes.get(&id).ok_or(Errno::NOENT)?;
        Ok(inode.contents.as_ref().ok_or(Errno::ISDIR)?)
    }

    pub(super) fn contents_mut(&mut self, id: InodeId) -> io::Result<&mut Contents> {
        let inode = self.inodes.get_mut(&id).ok_or(Errno::NOENT)?;
        Ok(Arc::make_mut(inode.contents.as_mut().ok_or(Errno::ISDIR)?))
    }

    /// The operations waiting on a file; an inode with an open file or a waiting operation exists.
    pub(super) fn queue(&mut self, id: InodeId) -> Option<&mut VecDeque<Entry>> {
        self.inodes.get_mut(&id).map(|inode| &mut inode.queue)
    }

    fn add_inode(&mut self, contents: Option<Contents>) -> InodeId {
        self.inode_last += 1;
        self.inodes.insert(self.inode_last, Inode::new(contents.map(Arc::new)));
        self.inode_last
    }
}

/// Names.
impl State {
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = self.resolve(path)?;
        self.check_dir(dir)?;
        let entry = |(name, id): (&std::ffi::OsString, InodeId)| {
            let contents = self.inodes.get(&id).and_then(|inode| inode.contents.as_ref());
            DirEntry {
                name: name.clone(),
                is_dir: contents.is_none(),
                len: contents.map_or(0, |contents| contents.len()),
            }
        };
        Ok(self.names.list(dir).map(entry).collect())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.faults.check_alive()?;
        match self.resolve(path) {
            Ok(id) => return self.check_dir(id).map_err(|_| Errno::EXIST.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (parent, name) = split(path)?;
        self.create_dir_all(parent)?;
        let dir = self.resolve(parent)?;
        self.begin(OpKind::CreateDir, dir, Some(&name))?;
        let id = self.add_inode(None);
        self.names.change(vec![((dir, name), Some(id))]);
        Ok(())
    }

    /// Creates a file and opens it.
    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Handle> {
        let (parent, name) = split(path)?;
        let dir = self.resolve(parent)?;
        self.check_dir(dir)?;
        if self.names.get(dir, &name).is_some() {
            self.faults.check_alive()?;
            return Err(Errno::EXIST.into());
        }
        self.begin(OpKind::Create, dir, Some(&name))?;
        let id = self.add_inode(Some(Contents::default()));
        self.names.change(vec![((dir, name), Some(id))]);
        Ok(self.open(id))
    }

    pub(super) fn open_file(&mut self, path: &Path) -> io::Result<Handle> {
        self.faults.check_alive()?;
        let id = self.resolve(path)?;
        self.contents(id)?;
        let index = self.opens;
        self.opens += 1;
        self.faults.check_open(index)?;
        Ok(self.open(id))
    }

    fn open(&mut self, id: InodeId) -> Handle {
        self.handle_last += 1;
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.handles.insert(self.handle_last, None);
        }
        Handle { inode: id, id: self.handle_last }
    }

    pub(super) fn close(&mut self, handle: Handle) {
        let Some(inode) = self.inodes.get_mut(&handle.inode) else { return };
        inode.handles.remove(&handle.id);
        if inode.handles.is_empty() && !inode.named {
            self.recount();
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.resolve(from)?;
        let ((from_parent, from_name), (to_parent, to_name)) = (split(from)?, split(to)?);
        let (from_dir, to_dir) = (self.resolve(from_parent)?, self.resolve(to_parent)?);
        self.check_dir(to_dir)?;
        if let Some(replaced) = self.names.get(to_dir, &to_name)
            && self.check_dir(replaced).is_ok()
        {
            return Err(Errno::ISDIR.into());
        }
        self.begin(OpKind::Rename, to_dir, Some(&to_name))?;
        let places = ((from_dir, from_name), (to_dir, to_name));
        if places.0 != places.1 {
            self.names.change(vec![(places.0, None), (places.1, Some(id))]);
            self.recount();
        }
        Ok(())
    }

    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.resolve(from)?;
        self.contents(id)?;
        let (parent, name) = split(to)?;
        let dir = self.resolve(parent)?;
        self.check_dir(dir)?;
        if self.names.get(dir, &name).is_some() {
            self.faults.check_alive()?;
            return Err(Errno::EXIST.into());
        }
        if self.faults.no_links {
            return Err(Errno::XDEV.into());
        }
        self.begin(OpKind::Link, dir, Some(&name))?;
        self.names.change(vec![((dir, name), Some(id))]);
        self.recount();
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let id = self.resolve(path)?;
        self.contents(id)?;
        self.remove(path)
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.resolve(path)?;
        self.check_dir(id)?;
        if self.names.list(id).next().is_some() {
            self.faults.check_alive()?;
            return Err(Errno::NOTEMPTY.into());
        }
        self.remove(path)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let dir = self.resolve(parent)?;
        self.begin(OpKind::Remove, dir, Some(&name))?;
        self.names.change(vec![((dir, name), None)]);
        self.recount();
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.resolve(path)?;
        self.check_dir(dir)?;
        self.begin(OpKind::SyncDir, dir, None)?;
        self.faults.check_sync()?;
        self.names.sync(dir);
        self.recount();
        Ok(())
    }

    /// Removes a file for good, past counting and faults.
    pub(super) fn uproot(&mut self, path: &Path) -> io::Result<()> {
        let id = self.resolve(path)?;
        self.contents(id)?;
        let (parent, name) = split(path)?;
        let dir = self.resolve(parent)?;
        self.names.change(vec![((dir, name), None)]);
        self.names.sync(dir);
        self.recount();
        Ok(())
    }

    /// Puts a durable file in place, past counting and faults.
    pub(super) fn plant(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let contents = Contents::of(bytes.to_vec());
        if let Ok(id) = self.resolve(path) {
            let before = std::mem::replace(self.contents_mut(id)?, contents);
            self.used -= before.len();
        } else {
            let (parent, name) = split(path)?;
            let dir = self.resolve(parent)?;
            self.check_dir(dir)?;
            let id = self.add_inode(Some(contents));
            self.names.plant((dir, name), id);
        }
        self.used += bytes.len() as u64;
        Ok(())
    }
}

/// Bytes.
impl State {
    /// One transfer of a write; returns how much of it was done.
    pub(super) fn write(
        &mut self,
        id: InodeId,
        bytes: &[u8],
        offset: u64,
        dsync: bool,
    ) -> io::Result<usize> {
        let index = self.begin(if dsync { OpKind::WriteDsync } else { OpKind::Write }, id, None)?;
        let is_short = self.faults.is_short(index);
        let count = self.faults.shorten(is_short, bytes.len(), &mut self.random);
        let count = self.fit(id, offset, count)?;
        let (bytes, start) = (&bytes[..count], offset as usize);
        let synced = if dsync { self.faults.check_sync() } else { Ok(()) };
        let change = self.next_change();
        let contents = self.contents_mut(id)?;
        let len_before = contents.len();
        match (dsync, &synced) {
            (false, _) => contents.write(change, start, bytes),
            (true, Ok(())) => contents.write_durable(start, bytes),
            (true, Err(_)) => contents.write_lost(start, bytes),
        }
        let len = contents.len();
        self.account(id, len_before, len);
        self.faults.check_late(index)?;
        synced.map(|()| count)
    }

    /// How many of `count` bytes at `offset` there is space for.
    fn fit(&mut self, id: InodeId, offset: u64, count: usize) -> io::Result<usize> {
        let len = self.contents(id)?.len();
        let Some(capacity) = self.faults.capacity else { return Ok(count) };
        let end_max = len.saturating_add(capacity.saturating_sub(self.used));
        let end = (offset + count as u64).min(end_max.max(len));
        match end.checked_sub(offset) {
            Some(fitting) if fitting > 0 || count == 0 => Ok(fitting as usize),
            _ => Err(Errno::NOSPC.into()),
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used))
    }

    fn account(&mut self, id: InodeId, len_before: u64, len: u64) {
        if self.inodes.get(&id).is_some_and(|inode| inode.named) {
            self.used = self.used - len_before + len;
        }
    }

    pub(super) fn set_len(&mut self, id: InodeId, len: u64) -> io::Result<()> {
        self.begin(OpKind::SetLen, id, None)?;
        let len_before = self.contents(id)?.len();
        let grown = len.saturating_sub(len_before);
        if self.faults.capacity.is_some_and(|capacity| grown > capacity.saturating_sub(self.used))
            && grown > 0
        {
            return Err(Errno::NOSPC.into());
        }
        self.resize(id, len)
    }

    /// Changes the length, past counting and faults.
    pub(super) fn resize(&mut self, id: InodeId, len: u64) -> io::Result<()> {
        let change = self.next_change();
        let contents = self.contents_mut(id)?;
        let len_before = contents.len();
        contents.set_len(change, len as usize);
        self.account(id, len_before, len);
        Ok(())
    }

    /// Makes changes up to `mark` durable.
    pub(super) fn sync(&mut self, handle: Handle, mark: ChangeId) -> io::Result<()> {
        let id = handle.inode;
        let allowed =
            self.begin(OpKind::Sync, id, None).and_then(|_index| self.faults.check_sync());
        let crashed = self.faults.crashed;
        let contents = self.contents_mut(id)?;
        match &allowed {
            Ok(()) => contents.sync(mark),
            // Without power there was no sync that could have failed.
            Err(_) if crashed => return allowed,
            Err(error) => {
                contents.lose(mark);
                let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
                self.owe(handle, errno);
            }
        }
        let inode = self.inodes.get_mut(&id).ok_or(Errno::NOENT)?;
        let owed = inode.handles.get_mut(&handle.id).and_then(Option::take);
        allowed.and_then(|()| owed.map_or(Ok(()), |errno| Err(errno.into())))
    }

    /// The failure of a sync through `told` is still to be reported to every other one who has the file open.
    fn owe(&mut self, told: Handle, errno: Errno) {
        let Some(inode) = self.inodes.get_mut(&told.inode) else { return };
        for (_, owed) in inode.handles.iter_mut().filter(|(id, _)| **id != told.id) {
            *owed = Some(errno);
        }
    }

    /// One transfer of a read; returns how many bytes there were.
    pub(super) fn read(&mut self, id: InodeId, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let index = self.reads;
        self.reads += 1;
        self.faults.check_read(index)?;
        let count = self.faults.shorten(false, buf.len(), &mut self.random);
        let visible = self.contents(id)?.visible();
        let start = visible.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let count = count.min(visible.len() - start);
        buf[..count].copy_from_slice(&visible[start..start + count]);
        Ok(count)
    }
}
