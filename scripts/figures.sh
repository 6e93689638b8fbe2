#!/usr/bin/env bash
# The figures that need no peer: each is measured in turns, and printed as the median and the range of its turns.
#
#   scripts/figures.sh DIR            all, some 25 minutes
#   scripts/figures.sh DIR cold open  only these
#
#   cold      gets of 1,000 byte values that are on the disk, beside fio reading as much
#   memory    what a process takes for each key
#   open      opening with hints and without, in memory and from the disk
#   space     bytes written for one user byte, and disk for one live byte, while everything is overwritten
#   latency   of puts at half of what is possible, with compaction and without
#   growth    puts and gets with a hundred times the keys
#   fallback  without io_uring, beside with
#
# DIR is on the disk that is meant, with 20 GiB free; all happens in a directory of its own in there, which is removed. Needs cargo and jq; `cold` needs fio, and root, who alone may say how
# much memory a process and its files get; `space` needs root and e2fsprogs, for a file system of its own.
set -euo pipefail

if [ $# = 0 ]; then
  echo "figures.sh: say on which directory, as in: scripts/figures.sh DIR [FIGURE...]" >&2
  exit 2
fi
mkdir -p "$1"
dir=$(mktemp -d "$(realpath "$1")/figures.XXXXXX")
shift
device=
clean_up() {
  if mountpoint -q "$dir/mount"; then umount "$dir/mount"; fi
  if [ -n "$device" ]; then losetup --detach "$device"; fi
  rm -rf "$dir"
}
trap clean_up EXIT
cd "$(dirname "$0")/.."
cargo build --release --quiet --features cli
ringcask=${CARGO_TARGET_DIR:-target}/release/ringcask
turns=${TURNS:-5}
store=$dir/store

# A store of its own for each run, unless it goes on with the one before.
bench() {
  case " $* " in *" --no-load "*) ;; *) rm -rf "$store" ;; esac
  "$ringcask" --dir "$store" bench --json "$@"
}

# Numbers, one a line, as the median and the range.
summary() {
  sort -g | awk -v "scale=${1:-1}" -v "unit=${2:-}" '
    { all[NR] = $1 / scale }
    END { printf "%.4g%s (%.4g to %.4g)\n", all[int((NR + 1) / 2)], unit, all[1], all[NR] }'
}

# Numbers of a file for each turn: `turn NAME JQ BENCH-ARGUMENTS...`
turn() {
  local name=$1 expression=$2
  shift 2
  bench "$@" | jq "$expression" >>"$dir/$name.numbers"
}

say() { # say NAME WHAT [SCALE UNIT]
  printf '%-60s %s\n' "$2" "$(summary "${3:-1}" "${4:-}" <"$dir/$1.numbers")"
}

begin() { rm -f "$dir"/*.numbers; }
rate=.mix.operations_per_second

# Whatever runs in here and its page cache together get 1 GiB.
limited() {
  local group=/sys/fs/cgroup/memory/ringcask-figures bound=memory.limit_in_bytes
  if [ ! -d /sys/fs/cgroup/memory ]; then
    group=/sys/fs/cgroup/ringcask-figures bound=memory.max
  fi
  mkdir -p "$group"
  echo $((1 << 30)) >"$group/$bound"
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    "$@"
  )
  rmdir "$group"
}

cold() {
  local data=(--records 6000000 --value-size 1000 --reads 100 --durability buffered)
  local work=("${data[@]}" --clients 64 --threads 2)
  bench "${work[@]}" --operations 1 >/dev/null
  # What a load leaves, small files, is merged before anything is measured.
  bench "${data[@]}" --no-load --clients 1 --threads 1 --seconds 60 >/dev/null
  fio --name=lay --filename="$dir/fio" --rw=write --bs=1M --size=6G --end_fsync=1 >/dev/null
  for _ in $(seq "$turns"); do
    limited "$ringcask" --dir "$store" bench --json "${work[@]}" --no-load --cold --seconds 8 |
      jq "$rate" >>"$dir/cold.numbers"
    limited "$ringcask" --dir "$store" bench --json "${work[@]}" --no-load --cold --seconds 8 --io blocking |
      jq "$rate" >>"$dir/cold-blocking.numbers"
    fio --name=cold --filename="$dir/fio" --direct=1 --ioengine=io_uring --rw=randread --bs=4k --iodepth=64 \
      --runtime=8 --time_based --output-format=json | jq '.jobs[0].read.iops' >>"$dir/fio.numbers"
  done
  rm "$dir/fio"
  say cold 'cold get, 1,000 B, 64 callers, 6 GB of data in 1 GiB' 1000 ' thousand/s'
  say cold-blocking 'the same without io_uring' 1000 ' thousand/s'
  say fio 'fio, 4 KiB at random, io_uring, direct, depth 64' 1000 ' thousand/s'
}

memory() {
  for millions in 8 9 10 11 12 13 14 15 16; do
    bench --records "${millions}000000" --operations 1 --durability buffered --value-size 8 |
      jq -r '"\(.engine.keydir_bytes_per_key) \(.engine.resident_bytes / .load.records)"' >"$dir/both"
    cut -d' ' -f1 "$dir/both" >>"$dir/keydir.numbers"
    cut -d' ' -f2 "$dir/both" >>"$dir/process.numbers"
  done
  say keydir 'keydir, 8 to 16 million keys' 1 ' bytes a key'
  say process 'whole process, freshly loaded' 1 ' bytes a key'
}

open() {
  local work=(--records 10000000 --operations 1 --durability buffered --recovery)
  for _ in $(seq "$turns"); do
    bench "${work[@]}" | jq -r '.open | "\(.with_hints_keys_per_second) \(.keys / .without_hints_seconds)"' >"$dir/both"
    cut -d' ' -f1 "$dir/both" >>"$dir/hints.numbers"
    cut -d' ' -f2 "$dir/both" >>"$dir/no-hints.numbers"
    turn cold-hints .open.with_hints_keys_per_second "${work[@]}" --cold
    bench --records 3000000 --value-size 1000 --operations 1 --durability buffered --recovery --cold |
      jq '.open.without_hints_bytes_per_second' >>"$dir/long.numbers"
    # The same files, from the disk, one after the other.
    local before after
    before=$(date +%s%N)
    find "$store" -name '*.data' -exec dd if={} of=/dev/null bs=1M iflag=direct status=none ';'
    after=$(date +%s%N)
    find "$store" -name '*.data' -printf '%s\n' |
      awk -v "nanos=$((after - before))" '{ sum += $1 } END { print sum / nanos * 1e9 }' >>"$dir/dd.numbers"
  done
  say hints 'open 10 million keys, in memory' 1e6 ' million keys/s'
  say cold-hints 'the same from the disk' 1e6 ' million keys/s'
  say no-hints 'in memory, hints removed' 1e6 ' million records/s'
  say long '3 million values of 1,000 B from the disk, hints removed' 1e9 ' GB/s'
  say dd 'dd of the same files' 1e9 ' GB/s'
}

space() {
  local records value image=$dir/image mount=$dir/mount written disk
  while read -r records value; do
    truncate -s 12G "$image"
    mkfs.ext4 -q "$image"
    mkdir -p "$mount"
    device=$(losetup --find --show "$image")
    mount "$device" "$mount"
    # The device counts for as long as its name has been in use.
    local sectors="/sys/block/${device#/dev/}/stat" most=0 now before
    before=$(awk '{ print $7 }' "$sectors")
    "$ringcask" --dir "$mount/store" bench --json --records "$records" --value-size "$value" --reads 0 \
      --operations $((5 * records)) --clients 256 --durability buffered >"$dir/found" &
    while kill -0 $! 2>/dev/null; do
      now=$(du -s --block-size=1 "$mount/store" 2>/dev/null | cut -f1) || true
      if [ "${now:-0}" -gt "$most" ]; then most=$now; fi
      sleep 0.2
    done
    wait $!
    sync -f "$mount"
    jq -r --argjson written "$(awk -v "before=$before" '{ print ($7 - before) * 512 }' "$sectors")" --argjson most "$most" \
      --argjson user $((6 * records * (23 + value))) \
      '"\($written / $user) \($most / .engine.live_bytes)"' "$dir/found" >"$dir/both"
    read -r written disk <"$dir/both"
    umount "$mount"
    losetup --detach "$device"
    device=
    rm "$image"
    printf '%-60s %.3g device bytes for a user byte, %.3g disk for a live byte\n' \
      "$records records of $value B, overwritten 5 times over" "$written" "$disk"
  done <<<$'5000000 100\n1000000 1000'
}

latency() {
  local half work=(--records 1000000 --reads 0)
  half=$(bench "${work[@]}" --seconds 6 --clients 1024 | jq "$rate / 2 | floor")
  for _ in $(seq "$turns"); do
    turn with .mix.put.p999_nanos "${work[@]}" --seconds 8 --clients 4000 --rate "$half"
    turn without .mix.put.p999_nanos "${work[@]}" --seconds 8 --clients 4000 --rate "$half" --no-compaction
    for beside in snapshot backup scan; do
      turn "$beside" .mix.put.p99_nanos "${work[@]}" --seconds 8 --clients 4000 --rate "$half" --beside "$beside"
    done
    turn nothing .mix.put.p99_nanos "${work[@]}" --seconds 8 --clients 4000 --rate "$half"
  done
  say with "p99.9 of $half durable puts a second" 1e6 ' ms'
  say without 'the same without compaction' 1e6 ' ms'
  say nothing 'p99' 1e6 ' ms'
  say snapshot 'p99 beside a snapshot a second, living for one' 1e6 ' ms'
  say backup 'p99 beside a backup a second' 1e6 ' ms'
  say scan 'p99 beside scans with values, one after the other' 1e6 ' ms'
}

growth() {
  local records
  for records in 100000 1000000 10000000; do
    for _ in $(seq "$turns"); do
      turn "put-$records" "$rate" --records "$records" --reads 0 --clients 256 --seconds 5
      turn "get-$records" "$rate" --records "$records" --reads 100 --clients 1 --threads 1 --seconds 5 --durability buffered
      turn "gets-$records" "$rate" --records "$records" --reads 100 --clients 64 --seconds 5 --durability buffered
    done
    say "put-$records" "durable put, 256 callers, $records keys" 1000 ' thousand/s'
    say "get-$records" "get, 1 thread, $records keys" 1000 ' thousand/s'
    say "gets-$records" "get, 64 callers, $records keys" 1000 ' thousand/s'
  done
}

fallback() {
  local io clients
  for _ in $(seq "$turns"); do
    for clients in 1 256 1024; do
      for io in uring blocking; do
        turn "$io-$clients" "$rate" --records 1000000 --reads 0 --clients "$clients" --seconds 5 --io "$io"
      done
    done
  done
  for clients in 1 256 1024; do
    say "uring-$clients" "durable put, $clients callers" 1000 ' thousand/s'
    say "blocking-$clients" "the same without io_uring" 1000 ' thousand/s'
  done
}

asked=("$@")
if [ ${#asked[@]} = 0 ]; then asked=(cold memory open space latency growth fallback); fi
for one in "${asked[@]}"; do
  case $one in
    cold | memory | open | space | latency | growth | fallback) ;;
    *)
      echo "figures.sh: there is no $one; there are cold, memory, open, space, latency, growth, fallback" >&2
      exit 2
      ;;
  esac
done
for one in "${asked[@]}"; do
  begin
  "$one"
done
