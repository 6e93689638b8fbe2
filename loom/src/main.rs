//! Models of what several threads touch, run in every interleaving up to a bound.
//!
//! The code is the library's own, file by file; only `crate::sync` is another here ([`sync`]), and two
//! bounds of [`limits`] are so small that a keydir grows within a few keys. What is around it is modelled,
//! and says so: the channel of a mailbox ([`mailbox_model::Queue`]) and arc-swap ([`sync::ArcSwap`]).
//!
//! A model fails if an assertion does, or if all threads wait and none can wake them.

mod keydir_model;
mod mailbox_model;
mod sync;

#[path = "../../src/len_code.rs"]
#[expect(dead_code, reason = "the log uses the rest of it")]
mod len_code;
#[path = "../../src/limits.rs"]
#[expect(dead_code, reason = "the engine uses the rest of it")]
mod limits_of_the_library;
#[path = "../../src/planted.rs"]
#[expect(dead_code, reason = "most bugs are planted elsewhere")]
mod planted;
#[path = "../../src/types.rs"]
#[allow(dead_code, reason = "the engine uses the rest; an expectation misses what a macro makes")]
mod types;

#[path = "../../src/keydir/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the engine uses the rest of it")]
mod keydir;

#[path = "../../src/mailbox/admission.rs"]
mod admission;
#[path = "../../src/mailbox/doorbell.rs"]
#[expect(dead_code, reason = "the engine uses the rest of it")]
mod doorbell;
#[path = "../../src/mailbox/reply.rs"]
mod reply;

/// The library's, but for a keydir's tables.
mod limits {
    pub(crate) use crate::limits_of_the_library::*;

    pub(crate) const KEYDIR_TABLE_BUCKETS: usize = 16;
    /// An expansion of one table begins with the second key and ends with the fourth.
    pub(crate) const KEYDIR_TABLE_FILL: u64 = 4;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A name, how many times a thread may be interrupted where it does not wait, and what is run.
type Model = (&'static str, Option<usize>, fn());

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    let mut all = 0;
    let models = mailbox_model::MODELS.iter().chain(&keydir_model::MODELS);
    for (name, preemption_bound, model) in models.filter(|(name, ..)| name.contains(&only)) {
        let started = Instant::now();
        let runs = Arc::new(AtomicU64::new(0));
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = *preemption_bound;
        builder.max_branches = 100_000;
        let (counted, model) = (Arc::clone(&runs), *model);
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            model();
        });
        let runs = runs.load(Ordering::Relaxed);
        println!("{name}: {runs} interleavings in {:.1} s", started.elapsed().as_secs_f64());
        all += runs;
    }
    assert!(all > 0, "no model is called {only}");
    println!("counted: loom interleavings = {all}");
}
