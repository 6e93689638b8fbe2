//! Staging: a request becomes a record in the open group.

use std::time::Instant;

use super::groups::{Answer, Effect, Pending};
use super::{Ops, Partition};
use bytes::Bytes;

use crate::error::Result;
use crate::log::format::record::{RecordHeader, RecordKind};
use crate::mailbox::{
    Body, Change, Durable, Expiry, PutMany, PutReply, ReplySender, Request, Update,
};
use crate::types::{ExpiresAt, KeyHash, Seqno};

impl Partition {
    pub(super) fn put(
        &mut self,
        hash: KeyHash,
        body: &Body,
        expires_at: Option<ExpiresAt>,
        durable: Durable,
        reply: PutReply,
    ) {
        if let Some(error) = &self.poisoned {
            return reply.send(Err(error.clone()));
        }
        if let Some(error) = self.put_refusal().or_else(|| self.dropped_refusal(body.keyspace)) {
            return reply.send(Err(error));
        }
        if let Some(error) = self.full_refusal(hash, record_len(body, expires_at)) {
            return reply.send(Err(error));
        }
        self.stage_put(hash, body, expires_at, durable, Answer::Done(reply));
    }

    /// Each as if it had come by itself.
    pub(super) fn put_many(&mut self, many: PutMany, ops: &mut Ops) {
        let PutMany { puts, expires_at, reply } = many;
        for (hash, body) in puts {
            let (durable, reply) = (Durable::Written, PutReply::Part(reply.clone()));
            self.handle(Request::Put { hash, body, expires_at, durable, reply }, ops);
            self.evict_advance(ops);
        }
    }

    pub(super) fn stage_put(
        &mut self,
        hash: KeyHash,
        body: &Body,
        expires_at: Option<ExpiresAt>,
        durable: Durable,
        answer: Answer,
    ) {
        self.view.counters.puts.add(1);
        self.view.counters.put_value_bytes.add(body.raw_len());
        self.view.counters.put_stored_bytes.add(body.value_len() as u64);
        let (at, len) = self.stage(RecordKind::Put, body, expires_at, durable);
        self.staged(Effect::Put { hash, at, len, expires_at }, answer);
    }

    /// Whether the key was there is what its entry says, unless a range is over it: then its record has to be
    /// looked at. False if that has to be waited for, at the head of the key's queue.
    pub(super) fn del(
        &mut self,
        hash: KeyHash,
        body: Body,
        durable: Durable,
        reply: ReplySender<Result<bool>>,
        ops: &mut Ops,
    ) -> bool {
        if self.is_covered((body.keyspace, body.key())) {
            let (keyspace, key) = (body.keyspace, Bytes::copy_from_slice(body.key()));
            let (expiry, change) = (Expiry::At(None), Change::Del { reply });
            let update = Update { hash, keyspace, key, durable, expiry, value_len_max: 0, change };
            return self.update_try(Box::new(update), ops);
        }
        self.del_known(hash, body, durable, reply);
        true
    }

    fn del_known(
        &mut self,
        hash: KeyHash,
        body: Body,
        durable: Durable,
        reply: ReplySender<Result<bool>>,
    ) {
        if let Some(error) = &self.poisoned {
            return reply.send(Err(error.clone()));
        }
        if let Some(error) = self.del_refusal().or_else(|| self.dropped_refusal(body.keyspace)) {
            return reply.send(Err(error));
        }
        self.view.counters.dels.add(1);
        let nothing_to_delete =
            *self.staged_keys.slot(hash) == 0 && self.keydir.get(hash).is_none();
        if nothing_to_delete {
            // No tombstone; but "it is gone" must be as durable as asked, and the deletion or loss
            // that made it so may not be yet.
            self.note_durable(durable);
            self.groups.wait(Answer::WasThere(reply, false));
            return;
        }
        // It came as it is, because whether a range is over its key had to be asked first.
        let body = body.encrypted(&self.config.codecs, RecordKind::Del);
        let (_, len) = self.stage(RecordKind::Del, &body, None, durable);
        self.staged(Effect::Del { hash, len }, Answer::WasThere(reply, false));
    }

    /// Everything staged before becomes durable before the reply.
    pub(super) fn sync(&mut self, reply: ReplySender<Result<()>>) {
        if let Some(error) = &self.poisoned {
            // Where nothing is written all of it is durable, or as durable as whoever wrote it left it.
            return reply.send(self.failure().map_or(Ok(()), |_| Err(error.clone())));
        }
        self.note_durable(Durable::Sync);
        self.groups.wait(Answer::Done(reply.into()));
    }

    /// Notes what the record that was just staged does once it is published.
    pub(super) fn staged(&mut self, effect: Effect, answer: Answer) {
        if let Some(hash) = effect.hash() {
            *self.staged_keys.slot(hash) += 1;
            self.evict_staged(effect);
        }
        self.groups.open().pending.push(Pending { effect, answer });
    }

    /// What was staged failed.
    pub(super) fn unstaged(&mut self, pending: &Pending) {
        if let Some(hash) = pending.effect.hash() {
            *self.staged_keys.slot(hash) -= 1;
            self.evict_failed(pending.effect, &pending.answer);
        }
    }

    /// Gives the record its sequence number and place (W1); returns its place in the group.
    pub(super) fn stage(
        &mut self,
        kind: RecordKind,
        body: &Body,
        expires_at: Option<ExpiresAt>,
        durable: Durable,
    ) -> (u32, u32) {
        let header = record_header(kind, body, expires_at, None);
        self.stage_record(header, body, durable)
    }

    /// As [`stage`](Self::stage), with a header that says more; its sequence number is given here.
    pub(super) fn stage_record(
        &mut self,
        header: RecordHeader,
        body: &Body,
        durable: Durable,
    ) -> (u32, u32) {
        let mut key_len = u64::from(header.key_len);
        if header.kind == RecordKind::RangeDel {
            key_len += u64::from(header.value_len); // A hint has ranges whole.
        }
        let len = header.record_len().into();
        self.groups.make_room(len, key_len, self.bounds);
        self.stage_here(header, body, durable)
    }

    /// Into the open group, which has room.
    pub(super) fn stage_here(
        &mut self,
        header: RecordHeader,
        body: &Body,
        durable: Durable,
    ) -> (u32, u32) {
        let header = RecordHeader { seqno: self.take_seqno(), ..header };
        let identity = self.owner.identity_of(self.groups.target_file());
        let group = self.groups.open();
        if group.staged_at.is_none() {
            group.staged_at = Some(Instant::now());
        }
        let at = group.push(identity, &header, [&body.head, &body.tail]);
        self.note_durable(durable);
        (at, header.record_len())
    }

    /// Never given again (F5).
    pub(super) fn take_seqno(&mut self) -> Seqno {
        let seqno = self.next_seqno;
        self.next_seqno = Seqno(seqno.0 + 1);
        seqno
    }

    pub(super) fn note_durable(&mut self, durable: Durable) {
        if durable == Durable::Sync {
            self.groups.open().needs_sync = true;
        }
    }
}

/// What a record says besides its key and value; its sequence number is given when it is staged.
pub(super) fn record_header(
    kind: RecordKind,
    body: &Body,
    expires_at: Option<ExpiresAt>,
    batch: Option<u64>,
) -> RecordHeader {
    RecordHeader {
        seqno: Seqno(0),
        kind,
        keyspace: body.keyspace,
        codec: body.codec,
        expires_at_ms: expires_at.map(ExpiresAt::as_ms),
        batch,
        raw_len: body.raw_len,
        key_len: body.key_len,
        value_len: body.value_len() as u32,
        body_crc: body.crc,
    }
}

/// Length of the record that a put becomes.
pub(super) fn record_len(body: &Body, expires_at: Option<ExpiresAt>) -> u32 {
    record_header(RecordKind::Put, body, expires_at, None).record_len()
}
