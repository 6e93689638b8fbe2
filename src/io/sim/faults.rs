//! What is to go wrong on a simulated disk, and when.

use std::io;

use rustix::io::Errno;

use super::random::Random;

#[derive(Default)]
pub(super) struct Faults {
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) syncs: Option<(i32, bool)>,
    pub(super) reads: Option<i32>,
    pub(super) capacity: Option<u64>,
    pub(super) short_transfers: f64,
    pub(super) would_block: f64,
    ops: Vec<FailingOp>,
}

struct FailingOp {
    nth: u64,
    errno: i32,
    forever: bool,
}

impl Faults {
    pub(super) fn fail_op(&mut self, nth: u64, errno: i32, forever: bool) {
        self.ops.push(FailingOp { nth, errno, forever });
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
        let hit = |op: &&FailingOp| index == op.nth || (op.forever && index > op.nth);
        match self.ops.iter().find(hit) {
            Some(op) => Err(io::Error::from_raw_os_error(op.errno)),
            None => Ok(()),
        }
    }

    pub(super) fn check_sync(&mut self) -> io::Result<()> {
        let Some((errno, forever)) = self.syncs else { return Ok(()) };
        if !forever {
            self.syncs = None;
        }
        Err(io::Error::from_raw_os_error(errno))
    }

    pub(super) fn check_read(&self) -> io::Result<()> {
        self.check_alive()?;
        self.reads.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    /// How many of `len` bytes this transfer moves: at least one, so that loops end.
    pub(super) fn shorten(&self, len: usize, random: &mut Random) -> usize {
        if len > 1 && random.chance(self.short_transfers) { 1 + random.below(len - 1) } else { len }
    }
}
