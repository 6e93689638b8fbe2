#!/usr/bin/env bash
# Runs the tests of the disk layer (ring, helper threads, simulated) under AddressSanitizer, and with it
# those of the engine on the real kernel. Leaks are failures too.
#
#   scripts/asan.sh           the disk layer, and a selection of the engine's tests
#   scripts/asan.sh all       all tests of the library and of the engine: some minutes
#
# Needs cargo and a kernel that allows io_uring. It is the stable compiler; RUSTC_BOOTSTRAP lets it take the
# flag. What the kernel writes, the sanitizer does not see: src/io/tests/dropped.rs watches that with canaries.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

triple=x86_64-unknown-linux-gnu
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address"
export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1"
# The reactor thread of one of the executors that tests try lives as long as the process, and with it what it
# registers with libc, and what a test's output would be caught in, if it were.
suppressions=$(mktemp)
printf 'leak:%s\n' async_io::driver __cxa_thread_atexit_impl >"$suppressions"
export LSAN_OPTIONS="suppressions=$suppressions:print_suppressions=0"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/asan

if [[ ${1:-} == all ]]; then
    lib=() engine=()
else
    lib=(io:: mailbox:: keydir::)
    engine=(executors:: handles:: lifecycle:: values::)
fi

log=$(mktemp)
trap 'rm -f "$log" "$suppressions"' EXIT
cargo test --quiet --target "$triple" --features sim --lib -- --nocapture "${lib[@]}" 2>&1 | tee "$log"
cargo test --quiet --target "$triple" --features sim --test engine -- --nocapture "${engine[@]}" 2>&1 | tee -a "$log"
passed=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$log" | paste -sd+ | bc)
((passed > 0)) || {
    echo "asan: no test was run" >&2
    exit 1
}
echo "asan: done after $SECONDS s"
echo "counted: tests under AddressSanitizer = $passed"
