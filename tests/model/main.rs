//! The store against a model of it: sequences of operations against an ordered map, and histories of
//! concurrent calls against the question whether any order explains them.
//!
//! Every run draws new numbers and prints `RINGCASK_SEED`; given back, it draws the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[expect(clippy::allow_attributes, reason = "an unused helper is none in the next binary")]
#[allow(dead_code, reason = "every test binary uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod beside;
mod concurrent;
mod follow;
mod history;
mod op;
mod oracle;
mod register;
mod regressions;
mod run;
mod sequences;
mod settings;
mod shrink;
mod verb;
