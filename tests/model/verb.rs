//! What a caller can ask about keys. A new verb of the store is a new variant here and a row in each of the
//! functions below; sequences and histories then use it.

use std::ops::Bound;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use ringcask::{Db, Durability, Result, WriteBatch};

use crate::register::{Action, Answer, Value};

/// A key by its number.
pub(crate) type Key = u8;

/// So many in each keyspace: the number of a key counts on from one to the next.
pub(crate) const KEYS: u8 = 12;

/// A keyspace by its number; the default one is 0.
pub(crate) type Space = u8;

pub(crate) const SPACES: u8 = 3;

/// A handle of the keyspace, which is made if there is none.
pub(crate) async fn handle(db: &Db, space: Space) -> Result<Db> {
    if space == 0 { Ok(db.clone()) } else { Ok((*db.keyspace(space_name(space)).await?).clone()) }
}

pub(crate) fn space_name(space: Space) -> String {
    format!("space {space}")
}

/// Short and long ones, some that begin like others, and bytes that sort at both ends.
pub(crate) fn key_bytes(key: Key) -> Vec<u8> {
    match key % KEYS {
        0 => b"a".to_vec(),
        1 => b"a\0".to_vec(),
        2 => b"aa".to_vec(),
        3 => b"ab".to_vec(),
        4 => b"b".to_vec(),
        5 => vec![0],
        6 => vec![0xff],
        7 => vec![0xff, 0xff],
        8 => [b"user:".as_slice(), &[b'x'; 300]].concat(),
        // Longer than the shortest data file.
        9 => vec![b'k'; 5000],
        10 => b"user:1".to_vec(),
        _ => b"user:2".to_vec(),
    }
}

/// Another value for each number, if it is long enough for that. Every third repeats itself, and so is short
/// where values are compressed.
pub(crate) fn value_bytes(number: u64, len: u32) -> Vec<u8> {
    let random = &mut fastrand::Rng::with_seed(number);
    let own_len = if number.is_multiple_of(3) { len.min(16) } else { len } as usize;
    let own: Vec<u8> = std::iter::repeat_with(|| random.lowercase() as u8).take(own_len).collect();
    own.into_iter().cycle().take(len as usize).collect()
}

/// How a value is handed over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    Slice,
    Text,
    Array,
    Owned,
    OwnedText,
    Boxed,
    Shared,
}

const FORMS: [Form; 7] =
    [Form::Slice, Form::Text, Form::Array, Form::Owned, Form::OwnedText, Form::Boxed, Form::Shared];

/// The length of values that are arrays.
const ARRAY_LEN: usize = 16;

/// When a put is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ack {
    /// As the store was opened.
    Usual,
    Durable,
    Written,
    Interval,
}

pub(crate) const ACKS: [Ack; 4] = [Ack::Usual, Ack::Durable, Ack::Written, Ack::Interval];

impl Ack {
    pub(crate) fn durability(self) -> Option<Durability> {
        match self {
            Ack::Usual => None,
            Ack::Durable => Some(Durability::Sync),
            Ack::Written => Some(Durability::Buffered),
            Ack::Interval => Some(Durability::Interval(std::time::Duration::from_millis(2))),
        }
    }
}

/// One request about keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verb {
    Put {
        key: Key,
        len: u32,
        form: Form,
        ack: Ack,
    },
    Del {
        key: Key,
    },
    Get {
        key: Key,
    },
    Contains {
        key: Key,
    },
    GetMany {
        keys: Vec<Key>,
    },
    PutIf {
        key: Key,
        len: u32,
        if_there: bool,
    },
    /// Stores a value of this length, or deletes, and returns what was there.
    Exchange {
        key: Key,
        len: Option<u32>,
    },
    /// Deletes from one key up to another, or from the first, or to the last.
    DelRange {
        from: Option<Key>,
        to: Option<Key>,
        ack: Ack,
    },
    /// Deletes what begins as a key does, with so many bytes of it.
    DelPrefix {
        key: Key,
        len: usize,
    },
    /// Stores values of these lengths, or deletes, all together; the last write of a key counts.
    Batch {
        writes: Vec<(Key, Option<u32>)>,
        ack: Ack,
    },
    /// Reads some keys, and then writes, if nothing that was read has changed.
    Transaction {
        reads: Vec<Key>,
        writes: Vec<(Key, Option<u32>)>,
    },
    /// Makes of what is there a value of this length, or nothing.
    Update {
        key: Key,
        len: Option<u32>,
    },
    /// The same in a keyspace that is not the default one.
    In(Space, Inner),
}

/// Printed as it is pasted into `regressions.rs`.
#[derive(Clone, PartialEq)]
pub(crate) struct Inner(Box<Verb>);

pub(crate) fn inner(verb: Verb) -> Inner {
    Inner(Box::new(verb))
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "inner({:?})", self.0)
    }
}

impl Verb {
    pub(crate) fn random(random: &mut fastrand::Rng) -> Verb {
        let len = match random.u32(..1000) {
            0..2 => random.u32(1 << 20..5 << 18),
            2..40 => random.u32(..70_000),
            40..200 => random.u32(..5000),
            200..280 => 0,
            _ => random.u32(..300),
        };
        let verb = Verb::among(random, KEYS, len);
        if random.u8(..6) == 0 { Verb::In(random.u8(1..SPACES), inner(verb)) } else { verb }
    }

    /// Any verb, on the first `keys` keys; a value has this length.
    pub(crate) fn among(random: &mut fastrand::Rng, keys: u8, len: u32) -> Verb {
        let key = random.u8(..keys);
        match random.u8(..100) {
            0..2 => {
                let mut edge = || (random.u8(..4) > 0).then(|| random.u8(..keys));
                let (from, to) = (edge(), edge());
                Verb::DelRange { from, to, ack: ACKS[random.usize(..ACKS.len())] }
            }
            2 => Verb::DelPrefix { key, len: random.usize(..3) },
            3..10 => Verb::PutIf { key, len, if_there: random.bool() },
            10..18 => Verb::Exchange { key, len: (random.u8(..3) > 0).then_some(len) },
            18..21 => Verb::Update { key, len: (random.u8(..4) > 0).then_some(len) },
            21..45 => {
                let form = FORMS[random.usize(..FORMS.len())];
                let len = if form == Form::Array { ARRAY_LEN as u32 } else { len };
                let ack = ACKS[random.usize(..ACKS.len())];
                Verb::Put { key, len, form, ack }
            }
            45..49 => {
                let ack = ACKS[random.usize(..ACKS.len())];
                Verb::Batch { writes: some_writes(random, keys, len), ack }
            }
            49..52 => {
                let reads = (0..random.usize(..4)).map(|_| random.u8(..keys)).collect();
                Verb::Transaction { reads, writes: some_writes(random, keys, len) }
            }
            52..62 => Verb::Del { key },
            62..85 => Verb::Get { key },
            85..92 => Verb::Contains { key },
            _ => {
                let count = random.usize(..5);
                Verb::GetMany {
                    keys: std::iter::repeat_with(|| random.u8(..keys)).take(count).collect(),
                }
            }
        }
    }

    /// What it does to which keys, in the order of its answers. `number` is another one at every call.
    pub(crate) fn actions(&self, number: u64) -> Vec<(Key, Action)> {
        match self {
            Verb::Put { key, len, .. } => {
                vec![(*key, Action::Put(Value::of(&value_bytes(number, *len))))]
            }
            Verb::Del { key } => vec![(*key, Action::Del)],
            Verb::Get { key } | Verb::Contains { key } => vec![(*key, Action::Get)],
            Verb::GetMany { keys } => keys.iter().map(|key| (*key, Action::Get)).collect(),
            Verb::PutIf { key, len, if_there } => {
                vec![(*key, Action::PutIf(Value::of(&value_bytes(number, *len)), *if_there))]
            }
            Verb::DelRange { .. } | Verb::DelPrefix { .. } => {
                let deleted = (0..KEYS).filter(|key| self.deletes(*key));
                deleted.map(|key| (key, Action::Wipe)).collect()
            }
            Verb::Exchange { key, len } | Verb::Update { key, len } => {
                let value = len.map(|len| Value::of(&value_bytes(number, len)));
                vec![(*key, Action::Exchange(value))]
            }
            Verb::Batch { writes, .. } => {
                let action = |value| Option::map_or(value, Action::Del, Action::Put);
                last_writes(writes, number).map(|(key, value)| (key, action(value))).collect()
            }
            Verb::Transaction { reads, writes } => {
                let mut actions: Vec<(Key, Action)> = last_writes(writes, number)
                    .map(|(key, value)| (key, Action::Exchange(value)))
                    .collect();
                for read in reads {
                    if actions.iter().all(|(key, _)| key != read) {
                        actions.push((*read, Action::Get));
                    }
                }
                actions
            }
            Verb::In(space, verb) => {
                let actions = verb.0.actions(number).into_iter();
                actions.map(|(key, action)| (space * KEYS + key, action)).collect()
            }
        }
    }

    /// What it is told if the store is full.
    pub(crate) fn refused(&self, number: u64) -> Vec<Answer> {
        match self {
            Verb::Batch { .. } | Verb::Transaction { .. } => {
                vec![Answer::Nothing; self.actions(number).len()]
            }
            Verb::In(_, verb) => verb.0.refused(number),
            _ => vec![Answer::Full],
        }
    }

    /// Whether the key is in the range.
    fn deletes(&self, key: Key) -> bool {
        let key = key_bytes(key);
        match self {
            Verb::DelRange { from, to, .. } => {
                from.is_none_or(|from| key_bytes(from) <= key)
                    && to.is_none_or(|to| key < key_bytes(to))
            }
            Verb::DelPrefix { key: of, len } => {
                let of = key_bytes(*of);
                key.starts_with(&of[..(*len).min(of.len())])
            }
            _ => false,
        }
    }

    /// The future, not polled yet.
    #[expect(clippy::too_many_lines, reason = "a row for each verb")]
    pub(crate) fn call<'a>(&self, db: &'a Db, number: u64) -> BoxFuture<'a, Result<Vec<Answer>>> {
        let holds = |found: Option<Bytes>| Answer::Holds(found.map(|bytes| Value::of(&bytes)));
        match self {
            Verb::Put { key, len, form, ack } => {
                let (key, value) = (key_bytes(*key), value_bytes(number, *len));
                let text = || String::from_utf8(value.clone()).unwrap();
                let put = match form {
                    Form::Slice => db.put(key, value.as_slice()),
                    Form::Text => db.put(key, text().as_str()),
                    Form::Array => {
                        let array: [u8; ARRAY_LEN] = value.as_slice().try_into().unwrap();
                        db.put(key, array)
                    }
                    Form::Owned => db.put(key, value),
                    Form::OwnedText => db.put(key, text()),
                    Form::Boxed => db.put(key, value.into_boxed_slice()),
                    Form::Shared => db.put(key, Bytes::from(value)),
                };
                let put = match ack.durability() {
                    Some(durability) => put.durability(durability),
                    None => put,
                };
                put.map(|done| done.map(|()| vec![Answer::Done])).boxed()
            }
            Verb::Del { key } => {
                let del = db.del(key_bytes(*key));
                del.map(|done| Ok(vec![Answer::Was(done?)])).boxed()
            }
            // Every fourth by a part that is all of it.
            Verb::Get { key } if number % 4 == 3 => {
                let get = db.get_range(key_bytes(*key), ..);
                get.map(move |done| Ok(vec![holds(done?)])).boxed()
            }
            Verb::Get { key } => {
                let get = db.get(key_bytes(*key));
                get.map(move |done| Ok(vec![holds(done?)])).boxed()
            }
            Verb::Contains { key } => {
                let contains = db.contains_key(key_bytes(*key));
                contains.map(|done| Ok(vec![Answer::Was(done?)])).boxed()
            }
            Verb::PutIf { key, len, if_there } => {
                let (key, value) = (key_bytes(*key), value_bytes(number, *len));
                let put = if *if_there {
                    db.put_if_present(key, value)
                } else {
                    db.put_if_absent(key, value)
                };
                put.map(|done| Ok(vec![Answer::Stored(done?)])).boxed()
            }
            Verb::Exchange { key, len } => {
                let key = key_bytes(*key);
                let exchanged = match len {
                    Some(len) => db.get_and_put(key, value_bytes(number, *len)),
                    None => db.get_and_del(key),
                };
                exchanged.map(move |done| Ok(vec![holds(done?)])).boxed()
            }
            Verb::DelRange { from, to, ack } => {
                let from = from.map_or(Bound::Unbounded, |key| Bound::Included(key_bytes(key)));
                let to = to.map_or(Bound::Unbounded, |key| Bound::Excluded(key_bytes(key)));
                let deletion = match (&from, &to) {
                    (Bound::Unbounded, Bound::Unbounded) => db.clear(),
                    _ => db.delete_range((from, to)),
                };
                let deletion = match ack.durability() {
                    Some(durability) => deletion.durability(durability),
                    None => deletion,
                };
                let count = self.actions(number).len();
                deletion.map(move |done| done.map(|()| vec![Answer::Done; count])).boxed()
            }
            Verb::DelPrefix { key, len } => {
                let of = key_bytes(*key);
                let deletion = db.delete_prefix(&of[..(*len).min(of.len())]);
                let count = self.actions(number).len();
                deletion.map(move |done| done.map(|()| vec![Answer::Done; count])).boxed()
            }
            Verb::Batch { writes, ack } => {
                let batch = writes.iter().fold(WriteBatch::new(), |batch, (key, len)| match len {
                    Some(len) => batch.put(key_bytes(*key), value_bytes(number, *len)),
                    None => batch.del(key_bytes(*key)),
                });
                let write = db.write(batch);
                let write = match ack.durability() {
                    Some(durability) => write.durability(durability),
                    None => write,
                };
                let actions = self.actions(number);
                let puts = actions.iter().filter(|(_, action)| *action != Action::Del).count();
                write
                    .map(move |done| {
                        let done = done?;
                        assert_eq!(
                            (done.puts, done.puts + done.dels),
                            (puts as u64, actions.len() as u64)
                        );
                        assert!(done.were_there <= actions.len() as u64);
                        Ok(vec![Answer::Done; actions.len()])
                    })
                    .boxed()
            }
            Verb::Transaction { reads, writes } => {
                transact(db, self.actions(number), reads.clone(), writes.clone(), number).boxed()
            }
            Verb::Update { key, len } => {
                let (key, new) = (key_bytes(*key), len.map(|len| value_bytes(number, len)));
                async move {
                    let mut seen = None;
                    let change = |old: Option<&[u8]>| {
                        seen = old.map(Value::of);
                        new.clone()
                    };
                    let now = db.update(key, change).await?;
                    assert_eq!(now.as_deref(), new.as_deref(), "what it has made of it");
                    Ok(vec![Answer::Holds(seen)])
                }
                .boxed()
            }
            Verb::In(space, verb) => {
                let (space, verb) = (*space, verb.0.clone());
                async move { verb.call(&handle(db, space).await?, number).await }.boxed()
            }
            Verb::GetMany { keys } => {
                let get_many =
                    db.get_many(keys.iter().map(|key| key_bytes(*key)).collect::<Vec<_>>());
                get_many.map(move |done| Ok(done?.into_iter().map(holds).collect())).boxed()
            }
        }
    }

    /// Whether it looks before it writes, which can take a while: a deletion does where a range was deleted. Or whether it
    /// overtakes those that wait, or needs more than one partition.
    pub(crate) fn may_wait(&self) -> bool {
        match self {
            Verb::In(_, verb) => verb.0.may_wait(),
            Verb::PutIf { .. }
            | Verb::Exchange { .. }
            | Verb::Del { .. }
            | Verb::DelRange { .. }
            | Verb::DelPrefix { .. }
            | Verb::Batch { .. }
            | Verb::Transaction { .. }
            | Verb::Update { .. } => true,
            Verb::Put { .. } | Verb::Get { .. } | Verb::Contains { .. } | Verb::GetMany { .. } => {
                false
            }
        }
    }

    /// Whether it is taken behind whatever was sent before it: what is for several partitions is not.
    pub(crate) fn is_in_line(&self) -> bool {
        match self {
            Verb::In(_, verb) => verb.0.is_in_line(),
            Verb::Batch { .. } | Verb::Transaction { .. } => false,
            _ => true,
        }
    }

    /// What might show the same with less to look at.
    pub(crate) fn simpler(&self) -> Vec<Verb> {
        match self {
            Verb::Put { key, len, form, ack } => {
                let put = |key, len, form, ack| Verb::Put { key, len, form, ack };
                let short = if *form == Form::Array { *len } else { 9 };
                let half = if *form == Form::Array { *len } else { len / 2 };
                vec![
                    put(0, *len, *form, *ack),
                    put(*key, short.min(*len), *form, *ack),
                    put(*key, half.max(9.min(*len)), *form, *ack),
                    put(*key, *len, Form::Slice, *ack),
                    put(*key, *len, *form, Ack::Usual),
                ]
            }
            Verb::Del { .. } => vec![Verb::Del { key: 0 }],
            Verb::Get { .. } => vec![Verb::Get { key: 0 }],
            Verb::Contains { key } => vec![Verb::Get { key: *key }],
            Verb::GetMany { keys } => keys.iter().map(|key| Verb::Get { key: *key }).collect(),
            Verb::PutIf { key, len, .. } | Verb::Exchange { key, len: Some(len) } => {
                let (form, ack) = (Form::Slice, Ack::Usual);
                vec![Verb::Put { key: *key, len: *len, form, ack }]
            }
            Verb::Exchange { key, len: None } => vec![Verb::Del { key: *key }],
            Verb::Update { key, len } => vec![Verb::Exchange { key: *key, len: *len }],
            Verb::Batch { writes, .. } => match &writes[..] {
                [] => vec![Verb::GetMany { keys: Vec::new() }],
                [(key, Some(len))] => {
                    let (form, ack) = (Form::Slice, Ack::Usual);
                    vec![Verb::Put { key: *key, len: *len, form, ack }]
                }
                [(key, None)] => vec![Verb::Del { key: *key }],
                _ => {
                    let fewer = fewer(writes).map(|writes| (writes, Ack::Usual));
                    fewer.map(|(writes, ack)| Verb::Batch { writes, ack }).collect()
                }
            },
            Verb::Transaction { reads, writes } => {
                let mut simpler = vec![
                    Verb::Batch { writes: writes.clone(), ack: Ack::Usual },
                    Verb::GetMany { keys: reads.clone() },
                ];
                let with = |reads, writes| Verb::Transaction { reads, writes };
                simpler.extend(fewer(reads).map(|reads| with(reads, writes.clone())));
                simpler.extend(fewer(writes).map(|writes| with(reads.clone(), writes)));
                simpler
            }
            Verb::In(space, verb) => {
                let mut simpler = vec![(*verb.0).clone()];
                simpler
                    .extend(verb.0.simpler().into_iter().map(|verb| Verb::In(*space, inner(verb))));
                simpler
            }
            Verb::DelRange { ack, .. } if *ack != Ack::Usual => {
                vec![Verb::DelRange { from: None, to: None, ack: Ack::Usual }]
            }
            Verb::DelRange { from, to, ack } => {
                let with = |from, to| Verb::DelRange { from, to, ack: *ack };
                vec![with(None, *to), with(*from, None)]
            }
            Verb::DelPrefix { .. } => {
                vec![Verb::DelRange { from: None, to: None, ack: Ack::Usual }]
            }
        }
        .into_iter()
        .filter(|verb| verb != self)
        .collect()
    }
}

fn some_writes(random: &mut fastrand::Rng, keys: u8, len: u32) -> Vec<(Key, Option<u32>)> {
    (0..random.usize(..6))
        .map(|index| {
            let len = if index == 0 { len } else { random.u32(..300) };
            (random.u8(..keys), (random.u8(..3) > 0).then_some(len))
        })
        .collect()
}

/// Of each key that is written what it holds then.
fn last_writes(
    writes: &[(Key, Option<u32>)],
    number: u64,
) -> impl Iterator<Item = (Key, Option<Value>)> {
    let is_last = |at: usize, key| writes[at + 1..].iter().all(|(later, _)| *later != key);
    let last = writes.iter().enumerate().filter(move |(at, (key, _))| is_last(*at, *key));
    last.map(move |(_, (key, len))| (*key, len.map(|len| Value::of(&value_bytes(number, len)))))
}

async fn transact(
    db: &Db,
    actions: Vec<(Key, Action)>,
    reads: Vec<Key>,
    writes: Vec<(Key, Option<u32>)>,
    number: u64,
) -> Result<Vec<Answer>> {
    let mut transaction = db.transaction();
    let mut seen = Vec::new();
    for key in reads {
        let value = transaction.get(key_bytes(key)).await?;
        seen.push((key, value.map(|value| Value::of(&value))));
    }
    for (key, len) in writes {
        match len {
            Some(len) => transaction.put(key_bytes(key), value_bytes(number, len)),
            None => transaction.del(key_bytes(key)),
        };
    }
    let is_done = match transaction.commit().await {
        Err(error) if error.is_conflict() => false,
        done => done.map(|_done| true)?,
    };
    let answer = |(key, _): (Key, Action)| {
        let state = seen.iter().find(|(read, _)| *read == key).map(|(_, state)| *state);
        match (state, is_done) {
            (Some(state), true) => Answer::Holds(state),
            (None, true) => Answer::Done,
            (Some(state), false) => Answer::Saw(state),
            (None, false) => Answer::Nothing,
        }
    };
    Ok(actions.into_iter().map(answer).collect())
}

/// The same without one of them.
fn fewer<T: Clone>(items: &[T]) -> impl Iterator<Item = Vec<T>> {
    (0..items.len()).map(|at| [&items[..at], &items[at + 1..]].concat())
}
