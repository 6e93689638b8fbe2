//! Stores whose files were changed, cut, exchanged or rolled back, one small change at a time: what comes
//! of it is a typed error that names the file, or the right answer, and never another one.
//!
//! A [`Layout`](layout::Layout) is a small store with every kind of file and record; a
//! [`Mutation`](mutation::Mutation) is one change to it, [`sweeps`] says which there are. What a changed
//! store may answer is worked out from its bytes by [`expect`], with a parser of its own ([`log`]) and none of
//! the engine's code; [`judge`] holds the store against that: what it says ([`told`]), what it contains ([`contents`]), and what
//! repair makes of it ([`repaired`]); and [`run`] does it for a
//! whole sweep, on all cores.
//!
//! A failure prints the mutation and where the changed store was saved. To run one mutation alone:
//! `RINGCASK_SEED=… RINGCASK_MUTATION='closed: Flip { … }'`. `RINGCASK_LONG=1` takes larger stores and every
//! bit of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[expect(clippy::allow_attributes, reason = "an unused helper is none in the next binary")]
#[allow(dead_code, reason = "every test binary uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod bytes;
mod contents;
mod exchanged;
mod expect;
mod judge;
mod layout;
mod log;
mod mutation;
mod repaired;
mod run;
mod sweeps;
mod told;
