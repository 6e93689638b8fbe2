//! What several threads saw of a store, and whether any order of their calls explains it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ringcask::{Db, ErrorKind};

use crate::op::{ALL, Fate, Selection};
use crate::register::{Action, Answer, Register, State, settles};
use crate::run::{collect, poll_some};
use crate::verb::{Key, Verb, key_bytes};

/// Orders what happens in different threads: what is over before something else begins has the smaller number.
#[derive(Default)]
pub(crate) struct Time(AtomicU64);

impl Time {
    pub(crate) fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    /// How far it is, without being something that happens.
    pub(crate) fn passed(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Tells other threads to end when it goes, by a panic too: those who wait for them would wait for ever.
pub(crate) struct Finish<'a>(pub(crate) &'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What one call did to one key.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) key: Key,
    pub(crate) action: Action,
    /// When it began, and when it was answered and with what.
    pub(crate) begun: u64,
    pub(crate) ended: Option<(u64, Answer)>,
    /// When nobody waited for it any more.
    pub(crate) dropped: Option<u64>,
    /// From here on it happens no more.
    pub(crate) expired: Option<u64>,
    /// It was taken behind what was sent before it.
    is_in_line: bool,
}

impl Seen {
    fn new(key: Key, action: Action, begun: u64) -> Seen {
        Seen { key, action, begun, ended: None, dropped: None, expired: None, is_in_line: true }
    }

    /// Its process was killed after `killed`: if it was not over by then nobody learned how it ended.
    pub(crate) fn kill(&mut self, killed: u64) {
        if self.ended.is_some_and(|(at, _)| at > killed) {
            self.ended = None;
        }
    }
}

/// Does it, and says what was seen. A store that is being closed may refuse it; then nobody knows whether it
/// happened, and the second value is false.
pub(crate) async fn call(
    time: &Time,
    db: &Db,
    verb: &Verb,
    number: u64,
    fate: Fate,
) -> (Vec<Seen>, bool) {
    let actions = verb.actions(number);
    let call = verb.call(db, number);
    let begun = time.now();
    let answer = match fate {
        Fate::Awaited => Some(call.await),
        Fate::Dropped(0) => return (Vec::new(), true),
        Fate::Dropped(polls) => poll_some(call, polls).await,
    };
    let over = time.now();
    let is_in_line = verb.is_in_line();
    let seen = |(key, action)| Seen { is_in_line, ..Seen::new(key, action, begun) };
    let mut seen: Vec<Seen> = actions.into_iter().map(seen).collect();
    match answer {
        None => seen.iter_mut().for_each(|seen| seen.dropped = Some(over)),
        Some(Ok(answers)) => {
            for (seen, answer) in seen.iter_mut().zip(answers) {
                seen.ended = Some((over, answer));
            }
        }
        Some(Err(error)) if error.kind() == ErrorKind::Closed => return (seen, false),
        Some(Err(error)) => panic!("{verb:?}: {:?}: {error}", error.kind()),
    }
    (seen, true)
}

/// A scan of all keys, as a get of each of the first `keys` that lasts as long as the scan does; nothing if
/// the store is closed before it ends.
pub(crate) async fn scan(time: &Time, db: &Db, keys: u8, keys_only: bool) -> Vec<Seen> {
    let begun = time.now();
    let found = match collect(db, &Selection { keys_only, ..ALL }).await {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::Closed => return Vec::new(),
        Err(error) => panic!("scan: {:?}: {error}", error.kind()),
    };
    let over = time.now();
    assert!(
        found.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "a scan is out of order, or has a key twice"
    );
    let known: Vec<Vec<u8>> = (0..keys).map(key_bytes).collect();
    assert!(
        found.iter().all(|(key, _)| known.contains(key)),
        "a scan has a key that was never put"
    );
    (0..keys)
        .map(|key| {
            let found = found.iter().find(|(found, _)| *found == known[usize::from(key)]);
            let answer = match found {
                Some((_, None)) => Answer::Was(true),
                Some((_, value)) => Answer::Holds(*value),
                None => Answer::Was(false),
            };
            Seen { ended: Some((over, answer)), ..Seen::new(key, Action::Get, begun) }
        })
        .collect()
}

/// The states that one key may be in after `seen`, all of it calls on that key that was absent before, and
/// that may have vanished at any time.
///
/// # Errors
/// What no order explains.
pub(crate) fn judge(seen: &[Seen], vanishes: bool) -> Result<BTreeSet<State>, String> {
    let mut events = Vec::new();
    for (id, call) in seen.iter().enumerate() {
        events.push((call.begun, Event::Begin, id));
        if let Some((at, _)) = call.ended {
            events.push((at, Event::End, id));
        } else if let Some(at) = expiry(call, seen) {
            events.push((at, Event::Expire, id));
        }
    }
    events.sort_unstable();
    let mut register = Register::new(None);
    register.set_vanishing(vanishes);
    for (at, event, id) in events {
        match event {
            Event::Begin => {
                let answer = seen[id].ended.map(|(_, answer)| answer);
                register.begin(id, seen[id].action, answer);
            }
            Event::Expire => register.expire(id),
            Event::End => {
                let states = register.states();
                if !register.end(id) {
                    return Err(tell(seen, at, &states));
                }
            }
        }
    }
    register.settle();
    Ok(register.states())
}

/// In the order in which they count at the same time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin,
    End,
    Expire,
}

/// Requests of a partition are taken in the order they were sent: a call that was dropped has happened when
/// a write of its key that began after that is over, or never will.
fn expiry(call: &Seen, seen: &[Seen]) -> Option<u64> {
    let overtaken = call.dropped.and_then(|dropped| {
        let later = seen.iter().filter(|later| later.begun > dropped && later.is_in_line);
        let ended = later.filter_map(|later| {
            let (at, answer) = later.ended?;
            settles(later.action, answer).then_some(at)
        });
        ended.min()
    });
    [overtaken, call.expired].into_iter().flatten().min()
}

/// The calls before the one that ended at `at`, which nothing explains.
fn tell(seen: &[Seen], at: u64, states: &BTreeSet<State>) -> String {
    let mut near: Vec<&Seen> = seen.iter().filter(|call| call.begun <= at).collect();
    near.sort_by_key(|call| call.begun);
    let mut text =
        format!("no order explains the call that ended at {at}; before it ended: {states:?}\n");
    for call in &near[near.len().saturating_sub(30)..] {
        let ended = match (call.ended, call.dropped) {
            (Some((ended, answer)), _) => format!("{ended:>6} {answer:?}"),
            (None, Some(dropped)) => format!("dropped at {dropped}"),
            (None, None) => "never over".to_owned(),
        };
        let mark = if call.ended.is_some_and(|(ended, _)| ended == at) { ">" } else { " " };
        writeln!(text, "{mark} {:>6} {:?}: {ended}", call.begun, call.action).unwrap();
    }
    text
}
