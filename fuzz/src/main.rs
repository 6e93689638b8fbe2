//! One binary with every fuzz target; `RINGCASK_FUZZ_TARGET` says which one runs. `list` names them all,
//! `seeds` writes what fuzzing starts from into the directory `RINGCASK_FUZZ_SEEDS`.
//!
//! One binary rather than one for each target: linking is what takes the time here.

#![no_main]

mod memory;
mod operations;
mod seeds;
mod store;
#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use the rest of it")]
mod support;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ringcask::decoders::{DECODERS, Decoder};

/// Targets beside the decoders of the log. A new one is added here.
const OTHERS: [Decoder; 2] =
    [("mutated_store", store::mutated_store), ("operations", operations::operations)];

fuzz_target!(init: { target(); }, |bytes: &[u8]| {
    let (_, check) = target();
    memory::bounded(bytes.len(), || check(bytes));
});

fn target() -> &'static Decoder {
    static TARGET: OnceLock<Decoder> = OnceLock::new();
    TARGET.get_or_init(|| {
        let wanted = std::env::var("RINGCASK_FUZZ_TARGET").unwrap_or_default();
        let mut all = DECODERS.iter().chain(&OTHERS);
        match wanted.as_str() {
            "list" => {
                all.for_each(|(name, _)| println!("{name}"));
                std::process::exit(0);
            }
            "seeds" => {
                seeds::write();
                std::process::exit(0);
            }
            _ => {}
        }
        let Some(found) = all.find(|(name, _)| *name == wanted) else {
            eprintln!("RINGCASK_FUZZ_TARGET is {wanted:?}, which is no target; `list` names them");
            std::process::exit(2);
        };
        *found
    })
}
