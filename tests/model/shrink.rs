//! From a case that fails to a short one that fails.

use crate::op::Case;

/// Takes a simpler case that fails, again and again, until none does. `fails` is asked at most `tries_max`
/// times; a failure that depends on threads may be missed, which leaves the result longer.
pub(crate) fn shrink(case: &Case, tries_max: usize, fails: impl Fn(&Case) -> bool) -> Case {
    let mut shortest = case.clone();
    let mut simpler = shortest.simpler();
    let (mut at, mut in_vain) = (0, 0);
    for _ in 0..tries_max {
        if in_vain >= simpler.len() {
            break;
        }
        at %= simpler.len();
        if fails(&simpler[at]) {
            // Goes on at the same place: what came before has just been tried.
            shortest = simpler.swap_remove(at);
            simpler = shortest.simpler();
            in_vain = 0;
        } else {
            at += 1;
            in_vain += 1;
        }
    }
    shortest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Between, How, Op};
    use crate::settings::PLAIN;
    use crate::support::seed;
    use crate::verb::Verb;

    /// A put of a long value, and a kill somewhere behind it.
    fn put_then_kill(case: &Case) -> bool {
        let is_put = |op: &Op| matches!(op, Op::One(Verb::Put { len: 100.., .. }));
        let is_kill = |op: &Op| matches!(op, Op::Reopen { how: How::Killed, .. });
        let put = case.ops.iter().position(is_put);
        put.is_some_and(|put| case.ops[put..].iter().any(is_kill))
    }

    /// Breaks if shrinking stops too early, or takes what does not fail.
    #[test]
    fn what_is_left_is_what_it_takes() {
        let random = &mut fastrand::Rng::with_seed(seed());
        let mut count = 0;
        while count < 20 {
            let case = Case::random(random, 150);
            if put_then_kill(&case) {
                count += 1;
                let shortest = shrink(&case, 5000, put_then_kill);
                assert!(put_then_kill(&shortest));
                assert_eq!((shortest.partitions, &shortest.settings), (1, &PLAIN));
                let [Op::One(Verb::Put { key: 0, len, .. }), Op::Reopen { settings, between, .. }] =
                    &shortest.ops[..]
                else {
                    panic!("{shortest:?}")
                };
                assert!(
                    (100..200).contains(len) && *between == Between::Nothing && *settings == PLAIN
                );
            }
        }
    }
}
