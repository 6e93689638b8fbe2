#!/usr/bin/env bash
# Prints how much the tests have done: images of crashed disks, kills, power cuts, changed bytes, histories.
#
#   scripts/counters.sh          runs all tests first
#   scripts/counters.sh LOG      reads what a run of scripts/test.sh has printed
#
# Suites say it as `counted: what = number`, some in several parts; here each is summed up.
set -euo pipefail
cd "$(dirname "$0")/.."

log=${1:-}
if [ -z "$log" ]; then
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  scripts/test.sh >"$log" 2>&1 || { tail -n 40 "$log" >&2; exit 1; }
fi
# Tests run side by side, so a line may begin behind another.
grep -ao 'counted: .* = [0-9]*' "$log" |
  awk -F '(: | = )' '{ sum[$2] += $3 } END { for (what in sum) printf "%-36s %12d\n", what, sum[what] }' |
  LC_ALL=C sort
