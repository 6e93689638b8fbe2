//! Many puts of one partition in one request, with one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Body, ReplySender};
use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::types::{ExpiresAt, KeyHash};

/// Puts in the order in which they happen, acknowledged as soon as all of them are written.
pub(crate) struct PutMany {
    pub(crate) puts: Vec<(KeyHash, Body)>,
    pub(crate) expires_at: Option<ExpiresAt>,
    pub(crate) reply: Together,
}

/// Who is told what came of a put.
pub(crate) enum PutReply {
    Own(ReplySender<Result<()>>),
    /// Somebody who waits for others too.
    Part(Together),
}

impl PutReply {
    pub(crate) fn send(self, answer: Result<()>) {
        match self {
            PutReply::Own(reply) => reply.send(answer),
            PutReply::Part(together) => together.answered(answer),
        }
    }
}

impl From<ReplySender<Result<()>>> for PutReply {
    fn from(reply: ReplySender<Result<()>>) -> PutReply {
        PutReply::Own(reply)
    }
}

/// One answer for many: the first error, if any of them failed. It is sent when the last clone goes; if not all were
/// answered by then, the worker is gone, and so is the answer (M1).
#[derive(Clone)]
pub(crate) struct Together(Arc<Shared>);

struct Shared {
    unanswered: AtomicUsize,
    error: Mutex<Option<Error>>,
    /// Taken when it is dropped.
    reply: Option<ReplySender<Result<()>>>,
}

impl Together {
    /// Answers `reply` once `count` answers are there.
    pub(crate) fn new(count: usize, reply: ReplySender<Result<()>>) -> Together {
        let (unanswered, error) = (AtomicUsize::new(count), Mutex::new(None));
        Together(Arc::new(Shared { unanswered, error, reply: Some(reply) }))
    }

    fn answered(self, answer: Result<()>) {
        if let Err(error) = answer {
            self.0.error.lock().get_or_insert(error);
        }
        self.0.unanswered.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(reply) = self.reply.take() else { return };
        if *self.unanswered.get_mut() == 0 {
            reply.send(self.error.get_mut().take().map_or(Ok(()), Err));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::error::ErrorKind;
    use crate::mailbox::{ReplyReceiver, reply_slot};

    fn poll(receiver: &ReplyReceiver<Result<()>>) -> Poll<Option<Result<(), ErrorKind>>> {
        let answer = receiver.poll_answer(&mut Context::from_waker(Waker::noop()));
        answer.map(|answer| answer.map(|answer| answer.map_err(|error| error.kind())))
    }

    /// Breaks if an answer comes too early, or one of many errors is forgotten.
    #[test]
    fn the_last_answer_tells_of_all() {
        for failing in [None, Some(0), Some(2)] {
            let (reply, receiver) = reply_slot();
            let together = Together::new(3, reply);
            let parts: Vec<PutReply> = (0..3).map(|_| PutReply::Part(together.clone())).collect();
            drop(together);
            for (index, part) in parts.into_iter().enumerate() {
                assert_eq!(poll(&receiver), Poll::Pending);
                part.send(if failing == Some(index) { Err(Error::closed()) } else { Ok(()) });
            }
            let expected = failing.map_or(Ok(()), |_| Err(ErrorKind::Closed));
            assert_eq!(poll(&receiver), Poll::Ready(Some(expected)));
        }
    }

    /// M1: breaks if puts that nobody has done are acknowledged with the others, or their caller waits for ever.
    #[test]
    fn what_no_worker_answers_is_not_acknowledged() {
        let (reply, receiver) = reply_slot();
        let together = Together::new(2, reply);
        PutReply::Part(together.clone()).send(Ok(()));
        drop(together);
        assert_eq!(poll(&receiver), Poll::Ready(None));
    }
}
