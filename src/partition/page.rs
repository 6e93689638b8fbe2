//! Pages of files for whoever walks the store on his own thread, and found them not to be in memory.
//!
//! The worker only reads: what the bytes mean, and whether they are sound, is for the caller to find out.

use std::sync::Arc;

use super::handles::read;
use super::{Event, Ops, Partition};
use crate::error::{Error, Result};
use crate::log::data_file::DataFile;
use crate::log::hint_file::Hint;
use crate::mailbox::{PageOf, ReplySender};

/// A page on its way.
pub(crate) struct PageRequest {
    of: PageOf,
    reply: ReplySender<Result<Vec<u8>>>,
}

impl PageRequest {
    pub(super) fn of(&self) -> &PageOf {
        &self.of
    }
}

impl Partition {
    pub(super) fn page(
        &mut self,
        of: PageOf,
        offset: u64,
        len: usize,
        reply: ReplySender<Result<Vec<u8>>>,
        ops: &mut Ops,
    ) {
        let (disk, fs, index) = (self.disk.clone(), self.fs.clone(), self.index);
        self.pages_in_flight += 1;
        self.here.leave_off();
        self.view.counters.pages.add(1);
        self.view.counters.page_bytes.add(len as u64);
        let request = PageRequest { of, reply };
        ops.push(Box::pin(async move {
            let stored = request.of.stored().clone();
            let (opened, result) = read(&disk, fs, stored, len, offset).await;
            (index, Event::PageRead { request, opened, result })
        }));
    }

    pub(super) fn page_done(&mut self, request: PageRequest, result: std::io::Result<Vec<u8>>) {
        self.pages_in_flight -= 1;
        let PageRequest { of, reply } = request;
        reply.send(result.map_err(|source| Error::io("read a page of", &of.stored().path, source)));
    }

    /// Somebody found a hint wrong: it is ignored from here on, and made anew (H1).
    pub(super) fn hint_broken(&mut self, data: &DataFile, hint: &Arc<Hint>) {
        if data.drop_hint(hint) {
            tracing::warn!(path = %hint.stored.path.display(), "a hint file is ignored");
            self.upkeep.hints_wanted(vec![data.id]);
        }
    }
}
