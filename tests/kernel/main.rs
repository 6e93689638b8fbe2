//! Ringcask against the kernel it runs on: real file systems that lose power, real processes that
//! are killed, disks that fill up, devices that fail, limits that are reached.
//!
//! The simulated disk reorders writes and tears them, which no kernel can be asked to do; what it
//! takes for granted is here: that the kernel behaves as the simulation says, and that the engine
//! reacts to the errors a kernel really returns.
//!
//! Most tests need root and a tool or two. Where one is missing the test says `SKIPPED: … because …`
//! on standard error and passes; with `RINGCASK_REQUIRE_KERNEL_TESTS=1` it fails. Random moments
//! come from a seed that is printed; `RINGCASK_SEED` brings it back.

#[cfg(test)]
mod child;
#[cfg(test)]
mod disk_full;
#[cfg(test)]
mod failed_sync;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod lock;
#[cfg(test)]
mod path;
#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod read_error;
#[cfg(test)]
mod support;
#[cfg(test)]
mod uring_denied;
