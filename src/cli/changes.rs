//! `changes`: what was committed, in the order of the log, for replicas and for whoever wants to know what happened.
//!
//! The position behind the last change is printed too, so that the next call goes on there. What lies between two
//! positions is there as long as nobody compacts it: see `changes_retention_bytes` of the library.

use std::str::FromStr;

use serde::Serialize;
use serde_json::json;

use super::args::StoreArgs;
use super::failure::{Failure, Outcome};
use super::format::{Format, JsonText, epoch_ms, tsv_escape};
use super::output::Output;
use super::store::open_to_look;
use crate::{Change, ChangeKind, ChangePosition, ChangesSince};

#[derive(clap::Args)]
pub(super) struct ChangesArgs {
    /// Behind this position, as an earlier call has printed it; `start`: with everything that the store holds;
    /// `now`: nothing, for the position alone.
    #[arg(long, value_name = "POSITION", default_value = "start")]
    since: Since,
    /// At most this many, and then the rest of their commit group.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// What a line looks like. `json`: one object a change, and at the end {"position":…}. `tsv`: put, keyspace, key,
    /// value, and when it expires if it does; or del, keyspace, key; or `del_range`, keyspace, begin, end; the position goes to
    /// standard error.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone)]
struct Since(ChangesSince);

impl FromStr for Since {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Since> {
        Ok(Since(match text {
            "start" => ChangesSince::Beginning,
            "now" => ChangesSince::Now,
            position => position.parse::<ChangePosition>()?.into(),
        }))
    }
}

pub(super) async fn changes(
    store: &StoreArgs,
    args: &ChangesArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_to_look(store).await?;
    let mut changes = db.changes(args.since.0.clone());
    let (mut told, mut line) = (0, Vec::new());
    let mut position = changes.position();
    // Whoever goes on from a position is told all of a group: between two of its changes there is none.
    let mut is_between = false;
    while args.limit.is_none_or(|limit| told < limit) || is_between {
        let Some(change) = changes.next().await else { break };
        line.clear();
        match args.format {
            Format::Json => json_line(&change?, &mut line),
            Format::Tsv => tsv_line(&change?, &mut line),
        }
        line.push(b'\n');
        output.bytes(&line)?;
        told += 1;
        let before = std::mem::replace(&mut position, changes.position());
        is_between = before.is_same_place(&position);
    }
    let position = changes.position().to_string();
    drop(changes);
    db.close().await?;
    match args.format {
        Format::Json => output.json(&json!({ "position": position }))?,
        Format::Tsv => {
            output.flush()?;
            eprintln!("position: {position}");
        }
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct ChangeLine<'a> {
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyspace: Option<String>,
    partition: usize,
    seqno: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<JsonText<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<JsonText<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begin: Option<JsonText<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<JsonText<'a>>,
}

fn json_line(change: &Change, line: &mut Vec<u8>) {
    let mut told = ChangeLine {
        change: name_of(&change.kind),
        keyspace: keyspace_of(change),
        partition: change.partition,
        seqno: change.seqno,
        key: None,
        value: None,
        expires_at_ms: None,
        begin: None,
        end: None,
    };
    match &change.kind {
        ChangeKind::Put { key, value, expires_at } => {
            told.key = Some(JsonText(key));
            told.value = Some(JsonText(value));
            told.expires_at_ms = expires_at.and_then(epoch_ms);
        }
        ChangeKind::Del { key } => told.key = Some(JsonText(key)),
        ChangeKind::DelRange(range) => {
            told.begin = Some(JsonText(range.begin()));
            told.end = range.end().map(|end| JsonText(end));
        }
    }
    serde_json::to_writer(line, &told).expect("a Vec takes every write");
}

fn tsv_line(change: &Change, line: &mut Vec<u8>) {
    line.extend_from_slice(name_of(&change.kind).as_bytes());
    let mut field = |bytes: &[u8]| {
        line.push(b'\t');
        tsv_escape(bytes, line);
    };
    field(keyspace_of(change).unwrap_or_default().as_bytes());
    match &change.kind {
        ChangeKind::Put { key, value, expires_at } => {
            field(key);
            field(value);
            if let Some(ms) = expires_at.and_then(epoch_ms) {
                field(ms.to_string().as_bytes());
            }
        }
        ChangeKind::Del { key } => field(key),
        ChangeKind::DelRange(range) => {
            field(range.begin());
            field(range.end().map_or(&[][..], |end| &end[..]));
        }
    }
}

fn name_of(kind: &ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Put { .. } => "put",
        ChangeKind::Del { .. } => "del",
        ChangeKind::DelRange(_) => "del_range",
    }
}

/// Its name; of one that was dropped since its number.
fn keyspace_of(change: &Change) -> Option<String> {
    match &change.keyspace {
        Some(name) => Some(name.to_string()),
        None => (change.keyspace_id > 0).then(|| format!("#{}", change.keyspace_id)),
    }
}
