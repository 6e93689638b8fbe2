#!/usr/bin/env bash
# Runs under Miri what needs no ring: the codecs, the keydir, the mailbox, and a store on the simulated disk.
#
#   scripts/miri.sh           what takes some minutes: a store, the kept inputs of fuzzing, the mailbox
#   scripts/miri.sh FILTER    the library's tests with this in their name
#
# Needs a nightly toolchain with miri and rust-src, which it installs if rustup can.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    rustup toolchain install nightly --profile minimal --component miri --component rust-src || {
        echo "miri: needs rustup, and the network or an installed nightly with miri and rust-src" >&2
        exit 1
    }
fi
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/miri
# Files of the corpus are read, and the clock; isolation would deny both.
# Threads give way where they wait or yield, and not elsewhere: a lock that is held by a thread that was
# interrupted would be waited for, and Miri takes offence at how parking_lot does that (`syscall(SYS_futex)` with a
# reference where it wants a pointer). Data races are found all the same, because what happens before what is known.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-preemption-rate=0"

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
miri() { cargo +nightly miri test --quiet --features sim "$@"; }
if (($# > 0)); then
    miri --lib -- "$@" 2>&1 | tee "$logs/lib"
else
    # The store takes most of the time, so the rest runs beside it.
    miri --lib --test corpus --test miri --no-run
    miri --test miri >"$logs/store" 2>&1 &
    store=$!
    miri --test corpus 2>&1 | tee "$logs/corpus"
    miri --lib -- len_code mailbox:: log::format::group 2>&1 | tee "$logs/lib"
    wait "$store" || {
        cat "$logs/store" >&2
        exit 1
    }
fi
passed=$(cat "$logs"/* | sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' | paste -sd+ | bc)
((passed > 0)) || {
    echo "miri: no test was run" >&2
    exit 1
}
echo "miri: done after $SECONDS s"
echo "counted: miri tests = $passed"
