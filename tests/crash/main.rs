//! Every crash point and every I/O error, on the simulated disk.
//!
//! A script runs once, and the disk keeps itself as it was before each of its operations. From each of
//! those moments every power cut is made that is worth telling apart, and a killed process; each image
//! that differs is opened and held against the invariants, and the recovery of it is crashed again at each
//! of its own operations. The faults run the script again for every operation, read and open that can
//! fail.
//!
//! ## Invariants
//! - **I1** What was acknowledged as durable survives a power cut; **I1b** whatever was acknowledged
//!   survives a kill.
//! - **I3** What a partition holds after a crash is a beginning of its history.
//! - **I4** What is gone stays gone, also after the compaction of what was recovered.
//! - **I5** After a pure crash every store opens.
//! - **I6** After a failed sync the partition takes no writes, and the file is not synced again.
//! - **I7** A full disk is over when there is space.
//! - **I9** Without hints the state is the same.
//! - **I10** Files that `FILES` does not list are not read.
//! - **I16** A recovery that was cut short, however often, ends in the same state; and a recovered store
//!   takes a write and keeps it.
//! - **I17** What a recovered store tells of its changes from the beginning on comes to what it holds.
//!
//! ## Running it
//! `RINGCASK_LONG=1` multiplies scripts and random cuts: hours, and many millions of images. `RINGCASK_SEED`
//! repeats a run as far as the scheduler lets it; the image that failed is left in the directory that
//! the failure names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[expect(clippy::allow_attributes, reason = "an unused helper is none in the next binary")]
#[allow(dead_code, reason = "every test binary uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod check;
mod cores;
mod cuts;
mod faults;
mod history;
mod points;
mod run;
mod script;
