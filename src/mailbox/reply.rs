//! One answer, from a worker to the future that waits for it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::planted::{Bug, is_planted};
use crate::sync::Mutex;

enum Slot<T> {
    Waiting(Option<Waker>),
    Answered(T),
    /// The sender was dropped without an answer: its worker is gone.
    Gone,
    Taken,
}

/// Held by the request; answers once, by [`Sender::send`] or by being dropped (M1).
pub(crate) struct Sender<T>(Option<Arc<Mutex<Slot<T>>>>);

/// Held by the caller's future; dropping it means that nobody wants the answer.
pub(crate) struct Receiver<T>(Arc<Mutex<Slot<T>>>);

pub(crate) fn slot<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Mutex::new(Slot::Waiting(None)));
    (Sender(Some(slot.clone())), Receiver(slot))
}

impl<T> Sender<T> {
    pub(crate) fn send(mut self, answer: T) {
        self.put(Slot::Answered(answer));
    }

    fn put(&mut self, answer: Slot<T>) {
        let taken = if is_planted(Bug::AnsweredTwice) { self.0.clone() } else { self.0.take() };
        let Some(slot) = taken else { return };
        // The waker runs after the lock is free: it may run anything, this slot's receiver too.
        let before = std::mem::replace(&mut *slot.lock(), answer);
        if let Slot::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.put(Slot::Gone);
    }
}

impl<T> Receiver<T> {
    /// The answer, or `None` if it will never come.
    pub(crate) fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.0.lock();
        match &mut *slot {
            Slot::Waiting(Some(waker)) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            Slot::Waiting(none) => {
                *none = Some(cx.waker().clone());
                Poll::Pending
            }
            Slot::Answered(_) => match std::mem::replace(&mut *slot, Slot::Taken) {
                Slot::Answered(answer) => Poll::Ready(Some(answer)),
                _ => Poll::Ready(None),
            },
            Slot::Gone | Slot::Taken => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<T>(receiver: &Receiver<T>) -> Poll<Option<T>> {
        receiver.poll_answer(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_dropped_sender_answers() {
        let (sender, receiver) = slot::<u32>();
        assert_eq!(poll(&receiver), Poll::Pending);
        drop(sender);
        assert_eq!(poll(&receiver), Poll::Ready(None));
    }

    #[test]
    fn an_answer_is_given_once_and_outlives_the_sender() {
        let (sender, receiver) = slot();
        sender.send(7);
        assert_eq!(poll(&receiver), Poll::Ready(Some(7)));
        assert_eq!(poll(&receiver), Poll::Ready(None));
    }
}
