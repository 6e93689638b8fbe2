//! What is to go wrong on a simulated disk, and when.

use std::io;

use rustix::io::Errno;

use super::random::Random;

#[derive(Default)]
pub(super) struct Faults {
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) syncs: Option<(i32, bool)>,
    pub(super) capacity: Option<u64>,
    pub(super) short_transfers: f64,
    pub(super) would_block: f64,
    pub(super) no_links: bool,
    pub(super) syncs_stalled: bool,
    ops: Vec<Failing>,
    reads: Vec<Failing>,
    opens: Vec<Failing>,
    short_ops: Vec<u64>,
    late: Vec<Failing>,
}

/// What fails, counted among its kind.
struct Failing {
    nth: u64,
    errno: i32,
    forever: bool,
}

impl Failing {
    fn check(all: &[Failing], index: u64) -> io::Result<()> {
        let hit = |one: &&Failing| index == one.nth || (one.forever && index > one.nth);
        match all.iter().find(hit) {
            Some(one) => Err(io::Error::from_raw_os_error(one.errno)),
            None => Ok(()),
        }
    }
}

impl Faults {
    pub(super) fn fail_op(&mut self, nth: u64, errno: i32, forever: bool) {
        self.ops.push(Failing { nth, errno, forever });
    }

    pub(super) fn fail_read(&mut self, nth: u64, errno: i32, forever: bool) {
        self.reads.push(Failing { nth, errno, forever });
    }

    pub(super) fn fail_open(&mut self, nth: u64, errno: i32, forever: bool) {
        self.opens.push(Failing { nth, errno, forever });
    }

    pub(super) fn fail_late(&mut self, nth: u64, errno: i32) {
        self.late.push(Failing { nth, errno, forever: false });
    }

    /// Whether a write that was done is reported as failed.
    pub(super) fn check_late(&self, index: u64) -> io::Result<()> {
        Failing::check(&self.late, index)
    }

    pub(super) fn shorten_op(&mut self, nth: u64) {
        self.short_ops.push(nth);
    }

    pub(super) fn is_short(&self, index: u64) -> bool {
        self.short_ops.contains(&index)
    }

    pub(super) fn clear(&mut self) {
        *self = Faults { crashed: self.crashed, ..Faults::default() };
    }

    /// After the power is gone nothing answers, reads included.
    pub(super) fn check_alive(&self) -> io::Result<()> {
        if self.crashed { Err(Errno::IO.into()) } else { Ok(()) }
    }

    /// Whether operation number `index` may go on.
    pub(super) fn check_op(&mut self, index: u64) -> io::Result<()> {
        self.crashed |= self.crash_at.is_some_and(|at| index >= at);
        self.check_alive()?;
        Failing::check(&self.ops, index)
    }

    pub(super) fn check_open(&self, index: u64) -> io::Result<()> {
        Failing::check(&self.opens, index)
    }

    pub(super) fn check_sync(&mut self) -> io::Result<()> {
        let Some((errno, forever)) = self.syncs else { return Ok(()) };
        if !forever {
            self.syncs = None;
        }
        Err(io::Error::from_raw_os_error(errno))
    }

    pub(super) fn check_read(&self, index: u64) -> io::Result<()> {
        self.check_alive()?;
        Failing::check(&self.reads, index)
    }

    /// How many of `len` bytes this transfer moves: at least one, so that loops end.
    pub(super) fn shorten(&self, is_short: bool, len: usize, random: &mut Random) -> usize {
        if len > 1 && (is_short || random.chance(self.short_transfers)) {
            1 + random.below(len - 1)
        } else {
            len
        }
    }
}
