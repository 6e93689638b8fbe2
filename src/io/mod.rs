//! The floor of the engine: files, the rings and threads that move their bytes, and the simulated disk.
//!
//! Three faces. [`Fs`] and [`File`] are synchronous, for opening, recovery, rotation, and for the
//! hop-free read ([`File::read_now`], which never blocks). [`Disk`] is asynchronous and belongs to
//! one worker thread. [`Driver`] builds the runtime a worker lives in, and with it its `Disk`.
//! Each has the same meaning on the operating system, in memory, and on the simulated disk.
//!
//! ## Invariants
//! - **U1** A buffer and the file it goes to belong to the operation until it completed. Dropping
//!   an [`Op`] cancels the wait, never the transfer in flight, and frees nothing the kernel may touch.
//! - **U2** Nothing is sent before an [`Op`]'s first poll; an `Op` that was never polled did nothing.
//! - **U3** When [`Driver::run`] returns, no operation of its `Disk` is in flight any more: the
//!   directory lock can be released, and a later opener sees no straggling write.
//! - **U4** A failed sync is reported as it is and never retried here (D1): the kernel marks the
//!   pages clean, so a second sync would succeed without having written them.
//! - **U5** Transfers are whole: short counts are continued here, and a result shorter than asked
//!   means the end of the file. The one exception is [`File::read_now`], one call by contract.

mod cached;
mod disk;
mod driver;
mod file;
mod fs;
mod locked;
mod locks;
mod memory;
mod pool;
mod ring;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

#[cfg(test)]
mod tests;

pub(crate) use disk::{Disk, Op, WriteMode};
pub(crate) use driver::{Driver, probe_uring, uring_denied_hint};
pub(crate) use file::{File, descriptors_max};
pub(crate) use fs::{Fs, LockFile, Sharing};
pub(crate) use locked::{Locked, LockedMemory, Locking};
pub use memory::Memory;
#[cfg(any(test, feature = "sim"))]
pub(crate) use sim::SimDisk;
