//! Is what callers saw of one key what some order of their calls explains?
//!
//! A key is a register. Calls on it are given to [`Register`] as they begin and end, and it keeps every
//! explanation there still is: the value, and which calls have had no effect yet although they began. A call
//! that ends must have had its effect, with the answer it got, between its beginning and its end; if no
//! explanation is left the history is not linearizable. (Wing and Gong's search with Lowe's refinement:
//! calls get their effect as late as possible, and explanations that are the same are kept once.) Keys do
//! not touch each other, so a store is linearizable if each of its keys is.
//!
//! A call whose caller went away, or was killed, never ends: it has its effect at any later time or never,
//! until [`expire`](Register::expire) or [`settle`](Register::settle) says that it is decided by now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What stands for the bytes of a value: equal if they are, as far as 64 bits of a hash can tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Value {
    len: u32,
    hash: u64,
}

impl Value {
    pub(crate) fn of(bytes: &[u8]) -> Value {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Value { len: bytes.len() as u32, hash: hasher.finish() }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{:08x}, {} bytes>", self.hash as u32, self.len)
    }
}

/// `None` is "absent".
pub(crate) type State = Option<Value>;

/// What a call does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Put(Value),
    Del,
    Get,
    /// Deletes it with a range, which may overtake what waits for the key.
    Wipe,
    /// Stores the value if the key is there, or if it is not.
    PutIf(Value, bool),
    /// Stores the value, or nothing, and tells what was there.
    Exchange(State),
}

/// What a caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is stored.
    Done,
    /// The value was stored, or not.
    Stored(bool),
    /// The key was there, or not.
    Was(bool),
    /// This is what it holds.
    Holds(State),
    /// Nothing was done: the store is full, and the key would have been a new one.
    Full,
    /// Nothing was done, for whatever reason.
    Nothing,
    /// The same, and it held this when it was looked at.
    Saw(State),
}

impl Action {
    /// The state after it, if this answer fits the state before; any does if nobody was told.
    fn apply(self, before: State, answer: Option<Answer>) -> Option<State> {
        let after = match self {
            Action::Put(value) => Some(value),
            Action::Del | Action::Wipe => None,
            Action::PutIf(value, if_there) if before.is_some() == if_there => Some(value),
            Action::Get | Action::PutIf(..) => before,
            Action::Exchange(state) => state,
        };
        let fits = match answer {
            None | Some(Answer::Done) => true,
            Some(Answer::Full) if before.is_none() && after.is_some() => return Some(before),
            Some(Answer::Full) => false,
            Some(Answer::Nothing) => return Some(before),
            Some(Answer::Saw(state)) => return (state == before).then_some(before),
            Some(Answer::Stored(is_stored)) => {
                matches!(self, Action::PutIf(_, if_there) if is_stored == (before.is_some() == if_there))
            }
            Some(Answer::Was(was_there)) => was_there == before.is_some(),
            Some(Answer::Holds(state)) => state == before,
        };
        fits.then_some(after)
    }
}

/// Whether what was sent before a call on the key has happened when that is answered, or never will: the call was
/// taken behind it. One that found nothing to delete may have looked only, before.
pub(crate) fn settles(action: Action, answer: Answer) -> bool {
    !matches!(
        (action, answer),
        (Action::Get | Action::Wipe, _) | (Action::Exchange(None), Answer::Holds(None))
    )
}

/// A call, by its number.
pub(crate) type CallId = usize;

/// One way to explain everything so far.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Explanation {
    state: State,
    /// Began and had no effect yet; sorted.
    waiting: Vec<CallId>,
}

impl Explanation {
    /// The same, and then the key has gone.
    fn gone(self) -> Explanation {
        Explanation { state: None, ..self }
    }
}

/// One key, and every explanation of what was seen of it.
#[derive(Clone, Debug)]
pub(crate) struct Register {
    explanations: BTreeSet<Explanation>,
    calls: BTreeMap<CallId, (Action, Option<Answer>)>,
    /// The key may go at any time, without anybody asking for it.
    vanishes: bool,
}

impl Register {
    pub(crate) fn new(state: State) -> Register {
        let explanation = Explanation { state, waiting: Vec::new() };
        let explanations = [explanation].into();
        Register { explanations, calls: BTreeMap::new(), vanishes: false }
    }

    /// From here on the key may go at any time, or only if somebody deletes it.
    pub(crate) fn set_vanishing(&mut self, vanishes: bool) {
        if self.vanishes {
            self.explanations.extend(self.explanations.clone().into_iter().map(Explanation::gone));
        }
        self.vanishes = vanishes;
    }

    /// A call begins. Its answer is known beforehand because histories are judged when they are over; a
    /// call that never ends has none.
    pub(crate) fn begin(&mut self, id: CallId, action: Action, answer: Option<Answer>) {
        if answer.is_none() && action == Action::Get {
            return; // Changes nothing and tells nothing.
        }
        let known = self.calls.insert(id, (action, answer));
        assert!(known.is_none(), "call {id} begins twice");
        let explanations = std::mem::take(&mut self.explanations);
        self.explanations = explanations
            .into_iter()
            .map(|mut explanation| {
                let at = explanation.waiting.partition_point(|waiting| *waiting < id);
                explanation.waiting.insert(at, id);
                explanation
            })
            .collect();
    }

    /// A call ends with its answer; false if nothing explains it.
    pub(crate) fn end(&mut self, id: CallId) -> bool {
        self.explanations = self.reach(|explanation| !explanation.waiting.contains(&id));
        self.calls.remove(&id);
        !self.explanations.is_empty()
    }

    /// A call that never ended has had its effect by now, or never will.
    pub(crate) fn expire(&mut self, id: CallId) {
        if !self.calls.contains_key(&id) {
            return;
        }
        let mut explanations = self.reach(|explanation| !explanation.waiting.contains(&id));
        explanations.extend(self.explanations.iter().cloned().map(|mut explanation| {
            explanation.waiting.retain(|waiting| *waiting != id);
            explanation
        }));
        self.explanations = explanations;
        self.calls.remove(&id);
    }

    /// Nothing is under way any more: as [`expire`](Self::expire) for every call that did not end.
    pub(crate) fn settle(&mut self) {
        let open: Vec<CallId> = self.calls.keys().copied().collect();
        for id in open {
            self.expire(id);
        }
    }

    /// The states that the key may be in.
    pub(crate) fn states(&self) -> BTreeSet<State> {
        self.explanations.iter().map(|explanation| explanation.state).collect()
    }

    /// Whether calls wait that have not ended.
    pub(crate) fn is_settled(&self) -> bool {
        self.calls.is_empty()
    }

    /// The state, if only one explains what was seen.
    pub(crate) fn decided(&self) -> Option<State> {
        let states = self.states();
        if states.len() == 1 { states.first().copied() } else { None }
    }

    /// From every explanation, the nearest ones that `is_goal` holds for, by giving waiting calls their
    /// effect in any order.
    fn reach(&self, is_goal: impl Fn(&Explanation) -> bool) -> BTreeSet<Explanation> {
        let mut reached = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut todo: Vec<Explanation> = self.explanations.iter().cloned().collect();
        let mut reach = |next: Explanation, todo: &mut Vec<Explanation>| {
            if seen.insert(next.clone()) {
                todo.push(next);
            }
        };
        while let Some(explanation) = todo.pop() {
            if is_goal(&explanation) {
                reached.insert(explanation);
                continue;
            }
            if self.vanishes && explanation.state.is_some() {
                reach(explanation.clone().gone(), &mut todo);
            }
            for (at, id) in explanation.waiting.iter().enumerate() {
                let (action, answer) = self.calls[id];
                let Some(state) = action.apply(explanation.state, answer) else { continue };
                let mut waiting = explanation.waiting.clone();
                waiting.remove(at);
                reach(Explanation { state, waiting }, &mut todo);
                if action == Action::Get {
                    // It fits here and changes nothing, so no other order explains more.
                    break;
                }
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::Action::{Del, Get, Put};
    use super::Answer::{Done, Full, Holds, Was};
    use super::*;

    fn value(n: u64) -> Value {
        Value { len: 0, hash: n }
    }

    fn put(n: u64) -> (Action, Option<Answer>) {
        (Put(value(n)), Some(Done))
    }

    fn get(n: u64) -> (Action, Option<Answer>) {
        (Get, Some(Holds(Some(value(n)))))
    }

    const MISSING: (Action, Option<Answer>) = (Get, Some(Holds(None)));
    const DEL: (Action, Option<Answer>) = (Del, Some(Was(true)));
    const DEL_MISSING: (Action, Option<Answer>) = (Del, Some(Was(false)));

    /// Calls as rows, time from left to right: `[` begins, `]` ends. A row without `]` never ends.
    fn explained(rows: &[(&str, (Action, Option<Answer>))]) -> Option<BTreeSet<State>> {
        let mut register = Register::new(None);
        let columns = rows.iter().map(|(row, _)| row.len()).max().unwrap();
        for column in 0..columns {
            for (id, (row, (action, answer))) in rows.iter().enumerate() {
                match row.as_bytes().get(column) {
                    Some(b'[') => {
                        let answer = answer.filter(|_| row.contains(']'));
                        register.begin(id, *action, answer);
                    }
                    Some(b']') if !register.end(id) => return None,
                    Some(b'!') => register.expire(id),
                    _ => {}
                }
            }
        }
        Some(register.states())
    }

    fn is_good(rows: &[(&str, (Action, Option<Answer>))]) -> bool {
        explained(rows).is_some()
    }

    #[test]
    fn one_after_the_other_is_what_it_looks_like() {
        assert!(is_good(&[
            ("[]", put(1)),
            ("  []", get(1)),
            ("    []", DEL),
            ("      []", MISSING)
        ]));
        assert!(is_good(&[("[]", MISSING), ("  []", DEL_MISSING), ("    []", put(1))]));
        assert!(!is_good(&[("[]", put(1)), ("  []", MISSING)]));
        assert!(!is_good(&[("[]", get(1)), ("  []", put(1))]));
        assert!(!is_good(&[("[]", DEL)]));
        assert!(!is_good(&[("[]", put(1)), ("  []", DEL_MISSING)]));
    }

    #[test]
    fn a_stale_read_is_refused() {
        assert!(!is_good(&[("[]", put(1)), ("  []", put(2)), ("    []", get(1))]));
        // Beside the second put both are right, but not the new one first.
        assert!(is_good(&[
            ("[]", put(1)),
            ("  [      ]", put(2)),
            ("   []", get(1)),
            ("     []", get(2))
        ]));
        assert!(!is_good(&[
            ("[]", put(1)),
            ("  [      ]", put(2)),
            ("   []", get(2)),
            ("     []", get(1))
        ]));
    }

    #[test]
    fn a_lost_update_is_refused() {
        // Two puts at once: either is last, and stays that.
        let puts = [("[   ]", put(1)), (" [ ]", put(2))];
        assert!(is_good(&[puts[0], puts[1], ("      []", get(1)), ("        []", get(1))]));
        assert!(is_good(&[puts[0], puts[1], ("      []", get(2)), ("        []", get(2))]));
        assert!(!is_good(&[puts[0], puts[1], ("      []", get(1)), ("        []", get(2))]));
        assert!(!is_good(&[puts[0], puts[1], ("      []", MISSING)]));
    }

    #[test]
    fn a_value_that_comes_back_is_refused() {
        assert!(!is_good(&[("[]", put(1)), ("  []", DEL), ("    []", get(1))]));
        assert!(!is_good(&[
            ("[]", put(1)),
            ("  []", DEL),
            ("    []", MISSING),
            ("      []", get(1))
        ]));
        assert!(!is_good(&[("[]", put(1)), ("  []", DEL), ("    []", DEL)]));
    }

    #[test]
    fn a_write_that_happens_twice_is_refused() {
        assert!(!is_good(&[
            ("[]", put(1)),
            ("  []", put(2)),
            ("    []", get(2)),
            ("      []", get(1)),
        ]));
        // Also one that nobody waited for.
        assert!(!is_good(&[("[", put(1)), (" []", get(1)), ("   []", DEL), ("     []", get(1)),]));
    }

    #[test]
    fn one_of_two_deletions_finds_the_key() {
        let dels = |a, b| {
            [("[]", put(1)), ("  [  ]", (Del, Some(Was(a)))), ("   [ ]", (Del, Some(Was(b))))]
        };
        assert!(is_good(&dels(true, false)) && is_good(&dels(false, true)));
        assert!(!is_good(&dels(true, true)) && !is_good(&dels(false, false)));
    }

    #[test]
    fn a_call_that_never_ends_happens_once_or_never_and_stays_decided() {
        let beside = |seen: &[(&'static str, (Action, Option<Answer>))]| {
            is_good(&[&[("[]", put(1)), ("  [", put(2))], seen].concat())
        };
        assert!(beside(&[("    []", get(1)), ("      []", get(1))]));
        assert!(beside(&[("    []", get(1)), ("      []", get(2))]));
        assert!(!beside(&[("    []", get(2)), ("      []", get(1))]));
        assert!(!beside(&[("    []", get(3))]));
        // A deletion nobody waited for, and a put after it that somebody did.
        assert!(is_good(&[("[]", put(1)), ("  [", DEL), ("   []", put(2)), ("     []", MISSING)]));
    }

    #[test]
    fn what_vanishes_is_gone_until_it_is_put_again() {
        let calls = |calls: &[(Action, Option<Answer>)]| {
            let mut register = Register::new(None);
            register.set_vanishing(true);
            calls.iter().enumerate().all(|(id, (action, answer))| {
                register.begin(id, *action, *answer);
                register.end(id)
            })
        };
        assert!(calls(&[put(1), get(1), MISSING, DEL_MISSING, put(2), get(2), MISSING]));
        assert!(!calls(&[put(1), MISSING, get(1)]));
        assert!(!calls(&[put(1), put(2), get(1)]));
        assert!(!calls(&[put(1), DEL_MISSING, get(1)]));
        let full = (Put(value(2)), Some(Full));
        assert!(calls(&[full, put(1), full, MISSING]), "it vanished, and then there was no room");
        assert!(!calls(&[put(1), full, get(1)]) && !calls(&[full, get(2)]));

        let mut register = Register::new(None);
        register.set_vanishing(true);
        register.begin(0, put(1).0, put(1).1);
        assert!(register.end(0));
        register.set_vanishing(false);
        assert_eq!(register.states().len(), 2, "it may be gone by now");
        register.begin(1, get(1).0, get(1).1);
        assert!(register.end(1));
        register.begin(2, MISSING.0, MISSING.1);
        assert!(!register.end(2), "and from here on it stays");
    }

    #[test]
    fn what_has_expired_happens_no_more() {
        let late = |expired| {
            is_good(&[("[]", put(1)), (expired, put(2)), ("    []", get(1)), ("      []", get(2))])
        };
        assert!(late("  ["));
        assert!(!late("  [!"));
        // But it may have happened before.
        assert!(is_good(&[("[]", put(1)), ("  [!", put(2)), ("    []", get(2))]));
        assert_eq!(explained(&[("[]", put(1)), ("  [!", put(2)), ("  [!", DEL)]).unwrap().len(), 3);
    }

    /// Every history of a few calls that a real register could give is explained, and what the search
    /// says is what trying every order says: breaks if the short cuts cut too much, or too little.
    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let random = &mut fastrand::Rng::with_seed(crate::support::seed());
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let count = random.usize(2..6);
            let mut times: Vec<usize> = (0..count * 2).collect();
            random.shuffle(&mut times);
            let calls: Vec<_> = (0..count)
                .map(|call| {
                    let (a, b) = (times[call * 2], times[call * 2 + 1]);
                    let n = random.u64(..3);
                    let does = match random.u8(..5) {
                        0 | 1 => put(call as u64),
                        2 => (Del, Some(Was(random.bool()))),
                        _ if n == 2 => MISSING,
                        _ => get(random.u64(..count as u64)),
                    };
                    let answer = does.1.filter(|_| random.u8(..5) > 0);
                    (a.min(b), a.max(b), does.0, answer)
                })
                .collect();
            let mut register = Register::new(None);
            let mut found = true;
            for time in 0..count * 2 {
                for (id, (begin, end, action, answer)) in calls.iter().enumerate() {
                    if *begin == time {
                        register.begin(id, *action, *answer);
                    } else if *end == time && answer.is_some() {
                        found &= register.end(id);
                    }
                }
            }
            let expected = any_order(&calls, &mut Vec::new(), None);
            assert_eq!(found, expected, "{calls:?}");
            if found { good += 1 } else { bad += 1 }
        }
        assert!(good > 1000 && bad > 1000, "{good} good, {bad} bad: a poor choice of histories");
    }

    /// Begin, end, and what it did; without an answer it never ended.
    type Call = (usize, usize, Action, Option<Answer>);

    /// Whether the calls that are not in `done` can follow in some order, those left out that never ended.
    fn any_order(calls: &[Call], done: &mut Vec<usize>, state: State) -> bool {
        let left: Vec<usize> = (0..calls.len()).filter(|call| !done.contains(call)).collect();
        if left.iter().all(|call| calls[*call].3.is_none()) {
            return true;
        }
        left.iter().any(|&next| {
            let (begin, _, action, answer) = calls[next];
            let is_late = left.iter().any(|&other| {
                let (_, end, _, answer) = calls[other];
                answer.is_some() && end < begin
            });
            let Some(after) = action.apply(state, answer).filter(|_| !is_late) else {
                return false;
            };
            done.push(next);
            let found = any_order(calls, done, after);
            done.pop();
            found
        })
    }
}
