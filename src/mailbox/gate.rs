//! One moment over all partitions (S1).
//!
//! Every partition is told to *mark*: as soon as no commit group of it is in flight it notes what it has, and from
//! then on publishes nothing, and so answers no write either. When the last one has marked they all go on. What each
//! has marked is what it had at that moment, because nothing was published since; and whatever was acknowledged
//! anywhere before is in it, and nothing that somebody wrote who knew of a later answer.
//!
//! A batch over partitions becomes visible in one after the other, so whoever wants a moment at which none is half
//! visible keeps [publications](super::publications) from beginning meanwhile.
//!
//! ## Invariants
//! - **GA1** Nobody is held for longer than the slowest partition takes to mark: the last one lets the others go,
//!   whether or not anybody still waits for the marks.
//! - **GA2** A partition that is held is let go exactly once, also if another one is lost.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::batch::Message;
use super::peers::Peers;
use crate::sync::Mutex;

/// What partitions mark, each with an `M`.
pub(crate) struct Gate<M> {
    peers: Arc<Peers>,
    state: Mutex<State<M>>,
}

struct State<M> {
    marks: Vec<Option<M>>,
    left: usize,
    /// By the clock of the last one to mark.
    now_ms: u64,
    /// Partitions that publish nothing until they are let go.
    held: Vec<usize>,
    /// A partition that cannot mark.
    lost: Option<usize>,
    waker: Option<Waker>,
}

/// The marks of all partitions, and when they were made, in milliseconds since 1970.
pub(crate) struct Marked<M> {
    pub(crate) marks: Vec<M>,
    pub(crate) now_ms: u64,
}

impl<M> Gate<M> {
    /// Asks every partition for its mark, by a message that `ask` makes.
    pub(super) fn begin(
        peers: &Arc<Peers>,
        partitions: usize,
        ask: impl Fn(Marking<M>) -> Message,
    ) -> Arc<Gate<M>> {
        let gate = Arc::new(Gate {
            peers: peers.clone(),
            state: Mutex::new(State {
                marks: (0..partitions).map(|_| None).collect(),
                left: partitions,
                now_ms: 0,
                held: Vec::new(),
                lost: None,
                waker: None,
            }),
        });
        for partition in 0..partitions {
            let marking = Marking { gate: gate.clone(), partition, is_over: false };
            peers.send(partition, ask(marking));
        }
        gate
    }

    /// The marks; or the partition that could not make its own.
    pub(crate) fn poll_marked(&self, cx: &mut Context<'_>) -> Poll<Result<Marked<M>, usize>> {
        let mut state = self.state.lock();
        if let Some(lost) = state.lost {
            return Poll::Ready(Err(lost));
        }
        if state.left > 0 {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let marks = std::mem::take(&mut state.marks).into_iter().flatten().collect();
        Poll::Ready(Ok(Marked { marks, now_ms: state.now_ms }))
    }

    /// Whether the partition is held from here on.
    fn marked(&self, partition: usize, mark: M, now_ms: u64) -> bool {
        let mut state = self.state.lock();
        if state.lost.is_some() {
            return false;
        }
        state.marks[partition] = Some(mark);
        state.left -= 1;
        if state.left > 0 {
            state.held.push(partition);
            return true;
        }
        state.now_ms = now_ms;
        self.open(state);
        false
    }

    fn lost(&self, partition: usize) {
        let mut state = self.state.lock();
        state.lost = state.lost.or(Some(partition));
        state.marks.clear();
        self.open(state);
    }

    /// Lets everybody go.
    fn open(&self, mut state: crate::sync::MutexGuard<'_, State<M>>) {
        let held = std::mem::take(&mut state.held);
        let waker = state.waker.take();
        drop(state);
        for partition in held {
            self.peers.send(partition, Message::Go);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// One partition's duty to mark. Dropping it says that the partition is gone.
pub(crate) struct Marking<M> {
    gate: Arc<Gate<M>>,
    partition: usize,
    is_over: bool,
}

impl<M> Marking<M> {
    /// Here is the mark; whether the partition publishes nothing until it is told to [go](Message::Go).
    pub(crate) fn marked(mut self, mark: M, now_ms: u64) -> bool {
        self.is_over = true;
        self.gate.marked(self.partition, mark, now_ms)
    }
}

impl<M> Drop for Marking<M> {
    fn drop(&mut self) {
        if !self.is_over {
            self.gate.lost(self.partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PartitionId;

    fn peers(count: usize) -> Arc<Peers> {
        Arc::new(Peers::new((0..count).map(|_| Arc::default())))
    }

    fn begin(peers: &Arc<Peers>, count: usize) -> (Arc<Gate<usize>>, Vec<Marking<usize>>) {
        let asked = Mutex::new(Vec::new());
        let gate = Gate::begin(peers, count, |marking| {
            asked.lock().push(marking);
            Message::Go
        });
        for partition in 0..count {
            assert_eq!(peers.take(PartitionId(partition as u32)).len(), 1);
        }
        (gate, asked.into_inner())
    }

    fn gone(peers: &Peers, partition: u32) -> usize {
        peers.take(PartitionId(partition)).len()
    }

    /// GA1, GA2: breaks if a partition goes on before the last one has marked, or stays held after it.
    #[test]
    fn the_last_to_mark_lets_the_others_go() {
        let cx = &mut Context::from_waker(Waker::noop());
        let peers = peers(3);
        let (gate, asked) = begin(&peers, 3);
        let mut asked = asked.into_iter();
        assert!(asked.next().unwrap().marked(10, 1));
        assert!(asked.next().unwrap().marked(11, 2));
        assert!(gate.poll_marked(cx).is_pending());
        assert_eq!((gone(&peers, 0), gone(&peers, 1)), (0, 0));
        assert!(!asked.next().unwrap().marked(12, 3));
        assert_eq!((gone(&peers, 0), gone(&peers, 1), gone(&peers, 2)), (1, 1, 0));
        let Poll::Ready(Ok(Marked { marks, now_ms })) = gate.poll_marked(cx) else { panic!() };
        assert_eq!((marks, now_ms), (vec![10, 11, 12], 3));
    }

    /// GA2: breaks if the others wait for ever for a partition that is gone.
    #[test]
    fn a_partition_that_is_gone_holds_nobody() {
        let cx = &mut Context::from_waker(Waker::noop());
        let peers = peers(3);
        let (gate, asked) = begin(&peers, 3);
        let mut asked = asked.into_iter();
        assert!(asked.next().unwrap().marked(10, 1));
        drop(asked.next());
        assert_eq!(gone(&peers, 0), 1);
        assert!(matches!(gate.poll_marked(cx), Poll::Ready(Err(1))));
        assert!(!asked.next().unwrap().marked(12, 3));
        assert_eq!(gone(&peers, 2), 0);
        peers.close(PartitionId(2));
        let gate: Arc<Gate<usize>> = Gate::begin(&peers, 3, |_marking| Message::Go);
        assert!(matches!(gate.poll_marked(cx), Poll::Ready(Err(0))));
    }
}
