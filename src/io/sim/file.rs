//! An open file and a lock of a simulated disk.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::SimDisk;
use super::state::Handle;

/// One open file. Keeps its inode alive after the name is gone.
pub(in crate::io) struct SimFile {
    disk: SimDisk,
    pub(super) handle: Handle,
    writable: bool,
}

impl SimFile {
    /// Takes over what the state opened.
    pub(super) fn opened(disk: SimDisk, handle: Handle, writable: bool) -> SimFile {
        SimFile { disk, handle, writable }
    }

    /// A file that was open before a crash belongs to the disk before the crash. Using it on the
    /// next one is a bug of the test, which would otherwise write where nobody looks.
    pub(super) fn check_on(&self, disk: &SimDisk) -> io::Result<&SimFile> {
        if Arc::ptr_eq(&self.disk.state, &disk.state) { Ok(self) } else { Err(Errno::XDEV.into()) }
    }

    pub(super) fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(Errno::BADF.into()) }
    }

    pub(in crate::io) fn read_now(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let ratio = state.faults.would_block;
        if state.random.chance(ratio) {
            return Err(Errno::AGAIN.into());
        }
        state.read(self.handle.inode, buf, offset)
    }

    pub(in crate::io) fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.state().read(self.handle.inode, buf, offset)
    }

    pub(in crate::io) fn write_some(
        &self,
        bytes: &[u8],
        offset: u64,
        dsync: bool,
    ) -> io::Result<usize> {
        self.check_writable()?;
        self.disk.state().write(self.handle.inode, bytes, offset, dsync)
    }

    pub(in crate::io) fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let mark = state.change_last();
        state.sync(self.handle, mark)
    }

    pub(in crate::io) fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.disk.state().set_len(self.handle.inode, len)
    }

    pub(in crate::io) fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.faults.check_alive()?;
        Ok(state.contents(self.handle.inode)?.len())
    }

    pub(in crate::io) fn drop_pages(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.faults.check_alive()?;
        state.contents_mut(self.handle.inode)?.drop_pages();
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.state().close(self.handle);
    }
}

/// The lock of a store on a simulated disk.
pub(in crate::io) struct SimLock {
    disk: SimDisk,
    handle: Handle,
}

impl SimLock {
    pub(super) fn taken(disk: SimDisk, handle: Handle) -> SimLock {
        SimLock { disk, handle }
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        state.locks.give_back(&self.handle.inode);
        state.close(self.handle);
    }
}
