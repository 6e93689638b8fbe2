//! What a store must say: a register for each key, also while it is open whether some write happened.

use crate::register::{Action, Answer, CallId, Register, State, settles};
use crate::verb::{KEYS, Key, SPACES, key_bytes};

/// So many calls that nobody waited for make too many explanations.
const ABANDONED_MAX: usize = 3;

/// A call that is over: what it did to which keys, and what it said, unless nobody waited for that.
pub(crate) struct Called {
    pub(crate) actions: Vec<(Key, Action)>,
    pub(crate) answers: Option<Vec<Answer>>,
    pub(crate) is_in_line: bool,
}

/// The whole store.
pub(crate) struct Oracle {
    keys: Vec<Register>,
    /// Calls that nobody waited for and that may still happen.
    abandoned: Vec<(Key, CallId)>,
    call_next: CallId,
}

impl Oracle {
    /// An empty store.
    pub(crate) fn new() -> Oracle {
        let keys = (0..SPACES * KEYS).map(|_| Register::new(None)).collect();
        Oracle { keys, abandoned: Vec::new(), call_next: 0 }
    }

    /// From here on keys may go at any time, or only if somebody deletes them.
    pub(crate) fn set_vanishing(&mut self, vanishes: bool) {
        self.keys.iter_mut().for_each(|key| key.set_vanishing(vanishes));
    }

    /// Calls that were in flight at the same time, and are over.
    ///
    /// # Errors
    /// What cannot be explained.
    pub(crate) fn called(&mut self, calls: &[Called]) -> Result<(), String> {
        let written: Vec<Key> = calls
            .iter()
            .filter(|call| call.is_in_line)
            .flat_map(|call| call.actions.iter().zip(call.answers.iter().flatten()))
            .filter(|((_, action), answer)| settles(*action, **answer))
            .map(|((key, _), _)| *key)
            .collect();
        let before = std::mem::take(&mut self.abandoned);
        // Requests of a partition are taken in the order they were sent, so what was abandoned before
        // another write of its key was sent has happened when that is answered, or never will.
        if calls.len() == 1 {
            self.expire(&before, &written);
        }
        let mut ends = Vec::new();
        for call in calls {
            for (index, (key, action)) in call.actions.iter().enumerate() {
                let answer = call.answers.as_ref().map(|answers| answers[index]);
                let id = self.call_next;
                self.call_next += 1;
                self.keys[usize::from(*key)].begin(id, *action, answer);
                match answer {
                    Some(answer) => ends.push((*key, id, *action, answer)),
                    None => self.abandoned.push((*key, id)),
                }
            }
        }
        for (key, id, action, answer) in ends {
            let register = &mut self.keys[usize::from(key)];
            let states = register.states();
            if !register.end(id) {
                let name = key_bytes(key).escape_ascii().to_string();
                return Err(format!(
                    "key {key} (\"{name:.20}\"): {action:?} got {answer:?}, states it could have been in: {states:?}"
                ));
            }
        }
        self.expire(&before, &written);
        self.abandoned.extend(before.into_iter().filter(|(key, _)| !written.contains(key)));
        Ok(())
    }

    fn expire(&mut self, abandoned: &[(Key, CallId)], written: &[Key]) {
        for (key, id) in abandoned.iter().filter(|(key, _)| written.contains(key)) {
            self.keys[usize::from(*key)].expire(*id);
        }
    }

    /// Nothing is under way any more.
    pub(crate) fn settle(&mut self) {
        self.abandoned.clear();
        self.keys.iter_mut().for_each(Register::settle);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.keys.iter().all(Register::is_settled)
    }

    /// Whether it should be settled for the sake of whoever has to search.
    pub(crate) fn is_crowded(&self) -> bool {
        self.abandoned.len() > ABANDONED_MAX
    }

    /// The state of a key, if that is known.
    pub(crate) fn decided(&self, key: Key) -> Option<State> {
        self.keys[usize::from(key)].decided()
    }

    /// The keys that are there, if that is known of every one.
    pub(crate) fn present(&self) -> Option<Vec<Key>> {
        let mut present = Vec::new();
        for (key, register) in self.keys.iter().enumerate() {
            if register.decided()?.is_some() {
                present.push(key as Key);
            }
        }
        Some(present)
    }
}
