//! Sequences as a failing run prints them: pasted here, under a name that says what broke.

use crate::op::{Between::*, Case, Edge::*, Fate::*, How::*, Op::*, Selection, Task::*};
use crate::run::{On, run};
use crate::settings::{Compacting::*, Compressing::*, Encrypting::*, Holding::*, Settings};
use crate::verb::{Ack::*, Form::*, Verb::*};

fn replay(case: &Case) {
    // What is printed is what was pasted, up to commas and space.
    let plain = |text: &str| text.replace([',', ' ', '\n', '_'], "");
    let (code, pasted) = (case.code(), plain(include_str!("regressions.rs")));
    let printed = code.split_once("replay").map(|(_, printed)| plain(printed)).unwrap();
    assert!(pasted.contains(&printed), "it would be printed as\n{code}");
    if let Err(what) = run(case, On::Sim) {
        panic!("{what}");
    }
}

/// A value that nobody waited for was in the log and not in the keydir, so it appeared at the next open.
#[test]
fn a_dropped_put_is_there_or_not_and_stays_so() {
    replay(&Case {
        disk_seed: 1,
        partitions: 1,
        settings: Settings {
            workers: 1,
            file_len_log2: 12,
            file_records: 1_048_576,
            prewrite: false,
            mailbox_requests: 1000,
            mailbox_bytes: 16_777_216,
            ack: Usual,
            compacting: Always,
            holding: All,
            open_files: 1000,
            read_cache: 0,
            locked: 0,
            scrub: false,
            compressing: Off,
            compression_len_min: 0,
            encrypting: Keyless,
            short_transfers: false,
            would_block: false,
        },
        ops: vec![
            Together(vec![
                (Put { key: 0, len: 9, form: Slice, ack: Usual }, Dropped(1)),
                (Get { key: 0 }, Awaited),
            ]),
            Abandon { what: Scanning, polls: 1 },
            Scan(Selection {
                space: 0,
                prefix: Some((2, 1)),
                from: With(0),
                to: Open,
                reverse: false,
                limit: None,
                keys_only: false,
                pages_of: None,
            }),
            Reopen {
                how: Closed,
                between: Nothing,
                settings: Settings {
                    workers: 1,
                    file_len_log2: 12,
                    file_records: 1_048_576,
                    prewrite: false,
                    mailbox_requests: 1000,
                    mailbox_bytes: 16_777_216,
                    ack: Usual,
                    compacting: Never,
                    holding: All,
                    open_files: 1000,
                    read_cache: 0,
                    locked: 0,
                    scrub: false,
                    compressing: Off,
                    compression_len_min: 0,
                    encrypting: Keyless,
                    short_transfers: false,
                    would_block: false,
                },
            },
            One(Get { key: 0 }),
        ],
    });
}
