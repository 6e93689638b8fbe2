#!/usr/bin/env bash
# Fuzzes every decoder, stores whose files were changed, and sequences of operations, with libFuzzer.
#
#   scripts/fuzz.sh                     2 seconds for each target, the inputs that are kept first
#   scripts/fuzz.sh 600                 10 minutes for each
#   scripts/fuzz.sh 60 record files     these targets alone
#   RINGCASK_FUZZ_KEEP=1 scripts/fuzz.sh 60    the same, then keeps what reached new code in fuzz/corpus
#
# Needs cargo, a C++ compiler and crates.io; stable Rust, no other tool. Inputs that were found stay in
# target/fuzz/found, one that fails in target/fuzz/failed; it is run again with
#   RINGCASK_FUZZ_TARGET=… target/fuzz/x86_64-unknown-linux-gnu/release/fuzz FILE
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

seconds=${1:-2}
shift || true
target_dir=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
triple=x86_64-unknown-linux-gnu
command -v c++ >/dev/null || {
    echo "fuzz: a C++ compiler is missing (apt-get install g++)" >&2
    exit 1
}

# What cargo-fuzz passes, without the sanitizer, which stable has not. Build scripts and macros are left out,
# because a target is named.
flags=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
)
(
    cd fuzz
    RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$target_dir \
        cargo build --release --quiet --target "$triple" -j "${CARGO_BUILD_JOBS:-2}"
)
fuzz=$target_dir/$triple/release/fuzz
echo "fuzz: built after $SECONDS s"

mkdir -p "$target_dir/failed" "$target_dir/seeds"
RINGCASK_FUZZ_TARGET=seeds RINGCASK_FUZZ_SEEDS=$target_dir/seeds "$fuzz" 2>/dev/null
if (($# > 0)); then
    targets=("$@")
else
    mapfile -t targets < <(RINGCASK_FUZZ_TARGET=list "$fuzz" 2>/dev/null)
fi

all=0
for target in "${targets[@]}"; do
    found=$target_dir/found/$target kept=fuzz/corpus/$target log=$target_dir/$target.log
    mkdir -p "$found" "$kept"
    options=(-timeout=30 -rss_limit_mb=1024 -max_len=16384 -print_final_stats=1
        "-artifact_prefix=$target_dir/failed/$target-")
    if ! RINGCASK_FUZZ_TARGET=$target "$fuzz" "${options[@]}" "-max_total_time=$seconds" \
        "$found" "$kept" "$target_dir/seeds/$target" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        echo "fuzz: $target FAILED; its input is in $target_dir/failed" >&2
        exit 1
    fi
    count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    inputs=$(find "$kept" -type f | wc -l)
    echo "fuzz: $target: $count executions, the $inputs kept inputs among them"
    ((count >= inputs)) || {
        echo "fuzz: $target: not every kept input was run" >&2
        exit 1
    }
    all=$((all + count))
    if [[ ${RINGCASK_FUZZ_KEEP:-} == 1 ]]; then
        merged=$(mktemp -d)
        RINGCASK_FUZZ_TARGET=$target "$fuzz" -set_cover_merge=1 -use_counters=0 -max_len=8192 "$merged" \
            "$kept" "$found" "$target_dir/seeds/$target" >"$log" 2>&1
        rm -rf "$kept"
        mv "$merged" "$kept"
        chmod 755 "$kept"
    fi
done
echo "counted: fuzz executions = $all"
