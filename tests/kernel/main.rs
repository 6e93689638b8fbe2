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
//!
//! By the hundred, in a run of a minute or two: kills ([`kill`]), power cuts on ext4 and on XFS
//! ([`power_cut`]), snapshots of the disk under load ([`snapshot`]). `RINGCASK_LONG=1` makes that 20,000
//! kills, 10,000 cuts on each file system and 10,000 snapshots, which takes the better part of an hour.
//! Each says how many it was, as `counted: kills = 500`.
//!
//! A cut and a snapshot keep the order of writes that the kernel gave the device. What a drive with a
//! volatile cache does beyond that, sectors in any order and directories without their entries, is the
//! simulated disk's.

#[cfg(test)]
mod child;
#[cfg(test)]
mod disk_full;
#[cfg(test)]
mod failed_sync;
#[cfg(test)]
mod file_systems;
#[cfg(test)]
mod interrupted;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod lock;
#[cfg(test)]
mod out_of_memory;
#[cfg(test)]
mod path;
#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod read_error;
#[cfg(test)]
mod read_only;
#[cfg(test)]
mod slow_disk;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod support;
#[cfg(test)]
mod uring_denied;
