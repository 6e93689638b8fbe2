#!/usr/bin/env bash
# The main job on real input: loads Debian's package index, reads every record back and compares it
# byte for byte, kills a second load with SIGKILL half way, opens the store again, and checks that
# each record has its old or its new value and that nothing else is there.
#
#   scripts/main-job.sh            builds the command first
#   scripts/main-job.sh RINGCASK   uses this one, by its path from the root of the repository
#
# Needs cargo and a Debian or a derivative; keeps everything but the build in a temporary directory
# that it removes.
set -euo pipefail
export LC_ALL=C

cd "$(dirname "$0")/.."
dir=$(mktemp -d)
load_pid=
cleanup() {
    if [[ -n $load_pid ]]; then
        kill -9 "$load_pid" 2>/dev/null || true
        wait "$load_pid" 2>/dev/null || true # So that it writes nothing more.
    fi
    rm -rf "$dir"
}
trap cleanup EXIT

say() { printf 'main-job: %s\n' "$*"; }
fail() {
    say "FAILED: $*" >&2
    exit 1
}

# What a load of the file's lines must leave: the last record of each key, in order of key. The bytes
# of keys sort as their lines do, because no key of the index needs an escape.
expected() {
    sort --stable --field-separator=$'\t' --key=1,1 "$1" |
        awk -F '\t' 'NR > 1 && $1 != key { print line } { key = $1; line = $0 } END { if (NR) print line }'
}

# Every record of a file with another value.
with_prefix() { awk -F '\t' -v OFS='\t' -v prefix="$1" '{ $2 = prefix $2; print }' "$2"; }

store() { "$ringcask" --dir "$dir/store" "$@"; }

check_exactly() {
    store dump --format tsv >"$dir/found.tsv"
    cmp "$1" "$dir/found.tsv" || fail "the dump differs from what was loaded"
    local found
    found=$(store count)
    [[ $found == "$(wc -l <"$1")" ]] || fail "count says $found"
}

ringcask=${1:-}
if [[ -z $ringcask ]]; then
    say "building"
    cargo build --release --quiet --features cli --bin ringcask
    ringcask=$(cargo metadata --format-version 1 --no-deps |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/ringcask
fi

if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null && [[ $EUID == 0 ]]; then
    say "fetching the package index"
    apt-get update -qq
fi
scripts/package-index.sh >"$dir/index.tsv"
expected "$dir/index.tsv" >"$dir/old.tsv"
# Each key once: a key that came twice could be found between its two new values after the kill.
with_prefix "v2 " "$dir/old.tsv" >"$dir/new.tsv"
records=$(wc -l <"$dir/old.tsv")
say "input: $(wc -l <"$dir/index.tsv") records, $records keys, $(wc -c <"$dir/index.tsv") bytes"

say "first load: $(store load --format tsv "$dir/index.tsv")"
check_exactly "$dir/old.tsv"
say "every key and value came back, byte for byte"

# The pipe stays open, so the load has not ended when half of its input has been taken, and puts are
# in flight when it is killed. Not through `store`: a function in the background is a shell of its own,
# and that would be killed.
mkfifo "$dir/pipe"
"$ringcask" --dir "$dir/store" load --format tsv - <"$dir/pipe" >/dev/null &
load_pid=$!
exec 3>"$dir/pipe"
head -n "$((records / 2))" "$dir/new.tsv" >&3
kill -9 "$load_pid"
wait "$load_pid" 2>/dev/null && fail "the second load ended before it was killed"
load_pid=
exec 3>&-

store dump --format tsv >"$dir/found.tsv"
mixture=$(awk -v old="$dir/old.tsv" -v new="$dir/new.tsv" '
    {
        if ((getline old_line < old) <= 0) { print "line " NR " is one too many"; exit }
        if ((getline new_line < new) <= 0) { print "line " NR " is one too many"; exit }
        if ($0 == old_line) old_count++
        else if ($0 == new_line) new_count++
        else { print "line " NR " has neither value: " substr($0, 1, 200); exit }
    }
    END { print old_count + 0, new_count + 0 }
' "$dir/found.tsv" | head -n 1)
[[ $mixture =~ ^([0-9]+)\ ([0-9]+)$ ]] || fail "after the kill $mixture"
old_count=${BASH_REMATCH[1]} new_count=${BASH_REMATCH[2]}
((old_count + new_count == records)) || fail "after the kill only $((old_count + new_count)) keys"
((old_count > 0 && new_count > 0)) || fail "the kill came too early or too late: $mixture"
say "killed a second load: $old_count keys have their old value, $new_count their new one"

say "third load: $(store load --format tsv "$dir/new.tsv")"
check_exactly "$dir/new.tsv"
say "every key and value came back, byte for byte"
say "PASSED in $SECONDS s"
