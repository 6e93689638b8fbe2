#!/usr/bin/env bash
# Shows that the tests would notice: brings each bug of src/planted.rs alive, one at a time, and demands
# that the test named beside it fails. With no bug alive the same tests must pass.
#
#   scripts/planted-bugs.sh            all of them
#   scripts/planted-bugs.sh NAME…      some of them
#
# Builds the tests once more, with `--cfg planted_bugs`; the dependencies are shared with other builds.
set -euo pipefail
cd "$(dirname "$0")/.."

# bug, test binary, test
table=(
  "AckBeforeSync            engine      durability::a_durable_put_takes_everything_before_it_along"
  "DsyncCoversAll           engine      durability::a_durable_put_takes_everything_before_it_along"
  "SealUnsynced             engine      durability::buffered_writes_survive_as_a_beginning"
  "UnlistedFileRead         engine      accounting::a_full_disk_after_a_stray_file_fails_one_group_only"
  "DirectoryUnsynced        engine      durability::crashes_at_random_moments_lose_nothing_durable"
  "MissingManifestIgnored   engine      opening::a_missing_manifest_is_damage_while_there_is_data"
  "BodyCrcIgnored           engine      compaction_faults::a_damaged_file_stops_its_compaction_and_no_other"
  "HeaderCrcIgnored         lib         log::"
  "PlaceIgnored             lib         log::"
  "StaleGroupRevived        lib         log::"
  "DamagedTailCut           engine      verify::lost_lists_do_not_end_the_reading"
  "SeqnoReset               engine      accounting::a_sequence_number_is_never_given_twice"
  "LastReadWins             engine      compaction::any_files_may_be_compacted_in_any_order"
  "MovedUnconditionally     engine      compaction::gets_beside_compactions_are_never_wrong"
  "DeadUncounted            engine      compaction::"
  "TombstoneDroppedEarly    engine      compaction::a_deleted_key_stays_deleted_whichever_file_is_compacted"
  "RangeDroppedEarly        engine      range_del::a_range_tombstone_outlives_what_it_hides"
  "IntentsUnhidden          engine      batch::what_was_deleted_stays_so_without_the_hint_of_its_batch"
  "RangeIgnoredByReaders    engine      range_del::readers_never_see_a_key_that_was_cleared"
  "RangeForgottenEarly      engine      range_del::every_read_misses_what_a_range_had"
  "InputsRemovedEarly       engine      compaction_faults::"
  "OutputsUnsynced          engine      compaction::what_supersedes_a_durable_value_is_durable_before_it_goes"
  "SupersedersUnsynced      engine      compaction_faults::neither_old_nor_new_is_never_what_a_power_cut_leaves"
  "BatchInPieces            engine      batch::a_crash_at_any_moment_leaves_all_of_a_batch_or_nothing"
  "DecidedEarly             engine      batch::an_acknowledged_batch_survives_a_power_cut"
  "DecisionUnsynced         engine      batch::an_acknowledged_batch_survives_a_power_cut"
  "AbortsForgotten          engine      batch::a_crash_at_any_moment_leaves_all_of_a_batch_or_nothing"
  "BatchSeenHalf            engine      batch::a_batch_in_one_partition_is_seen_whole"
  "UnsettledForReaders      engine      read_only::after_any_crash_it_is_what_any_open_finds"
  "LeftBehindCounts         engine      repartition::nothing_that_was_left_behind_comes_back"
  "MovedUnsynced            engine      repartition::whenever_it_is_killed_everything_is_there"
  "StaleHintBelieved        lib         log::hint_file::"
  "DamagedHintPassedOver    engine      scan_files::a_hint_that_is_damaged_under_a_scan_is_ignored_and_made_anew"
  "RewrittenPassedOver      engine      scan::a_key_that_is_overwritten_or_moved_before_its_turn_is_seen"
  "CoversTheUnmerged        engine      key_runs::scans_through_runs_are_what_an_ordered_map_says"
  "SnapshotUnnoted          engine      snapshot::ten_thousand_overwrites_later_the_old_values_are_there"
  "MomentsApart             engine      snapshot::no_partition_publishes_between_the_marks_of_two"
  "BackupManifestFirst      engine      backup::cut_short_anywhere_it_is_the_old_one_or_the_new_one_or_none"
  "UnsettledHintKept        engine      backup::a_batch_that_is_on_its_way_is_completed_by_the_open_of_a_backup"
  "BackupStaysOne           engine      backup::a_backup_that_was_opened_is_a_store_of_its_own"
  "NamesBelieved            engine      scan::every_kind_of_scan_is_what_an_ordered_map_says"
  "FailedSyncRetried        engine      faults::a_failed_sync_poisons_the_partition_for_writes"
  "FailedGroupLeft          engine      faults::what_was_told_to_have_failed_does_not_come_alive"
  "ShortWriteIgnored        engine      faults::a_full_disk_in_rotation"
  "AnsweredTwice            engine      durability::sync_close_and_drop_make_everything_durable"
  "EvictionUnlogged         engine      eviction::what_was_evicted_stays_gone"
  "ClaimedLengthBelieved    engine      compression::a_forged_length_is_damage_and_takes_no_memory"
  "OldKeyKept               engine      encryption::a_key_is_replaced_by_compaction"
  "HintInPlain              engine      encryption::no_file_says_anything_of_keys_and_values"
  "WatchGapHidden           engine      watch::nothing_is_missed_that_is_not_reported"
  "WatchToldLate            engine      watch::what_is_acknowledged_was_told"
  "ChangesGapHidden         engine      changes::what_is_gone_is_never_passed_over"
  "CachedByOffset           engine      read_cache::what_is_gone_is_not_there_because_it_was_read"
  "LockIgnored              kernel      lock::"
)
timeout_secs=120

wrapper=$(mktemp)
trap 'rm -f "$wrapper"' EXIT
printf '#!/bin/sh\nexec "$@" --cfg planted_bugs\n' >"$wrapper"
chmod +x "$wrapper"
# A path that is always the same, or cargo would build anew each time.
install -D "$wrapper" target/with-planted-bugs
built=$(RUSTC_WORKSPACE_WRAPPER=$PWD/target/with-planted-bugs \
  cargo test --all-features --lib --tests --no-run --message-format=json 2>/dev/null |
  grep '"executable":"' | grep -v '"kind":\["bin"\]' |
  grep -o '"executable":"[^"]*"' | cut -d'"' -f4)

binary_of() {
  if [ "$1" = lib ]; then
    grep -E '/ringcask-[0-9a-f]+$' <<<"$built" | head -n 1
  else
    grep -E "/$1-[0-9a-f]+\$" <<<"$built"
  fi
}

# Ends with the status of the test, 124 if it hung.
run() {
  local bug=$1 binary=$2 test=$3
  RINGCASK_PLANTED_BUG=$bug RINGCASK_SEED=${RINGCASK_SEED:-1} \
    timeout "$timeout_secs" "$binary" "$test" >/dev/null 2>&1
}

noticed=0 missed=()
declare -A passes
for row in "${table[@]}"; do
  read -r bug suite test <<<"$row"
  if [ $# -gt 0 ] && ! grep -qw "$bug" <<<"$*"; then
    continue
  fi
  binary=$(binary_of "$suite")
  if [ -z "${passes[$suite $test]:-}" ]; then
    run none "$binary" "$test" || { echo "planted-bugs: $suite $test fails without any bug" >&2; exit 1; }
    passes["$suite $test"]=1
  fi
  status=0
  run "$bug" "$binary" "$test" || status=$?
  case $status in
    0) how="NOT NOTICED"; missed+=("$bug") ;;
    124) how="noticed: the test hangs"; noticed=$((noticed + 1)) ;;
    *) how="noticed"; noticed=$((noticed + 1)) ;;
  esac
  printf '%-24s %-12s %s (%s)\n' "$bug" "$how" "$test" "$suite"
done

# Not through a pipe: `grep -q` ends early, and whoever writes to it then fails.
rows=$(printf '%s\n' "${table[@]}")
for bug in $(grep -oE '^    [A-Z][A-Za-z]+,$' src/planted.rs | tr -d ' ,'); do
  if [ $# -eq 0 ] && ! grep -q "^$bug " <<<"$rows"; then
    echo "planted-bugs: $bug has no test" >&2
    missed+=("$bug")
  fi
done
echo "counted: planted bugs noticed = $noticed"
if [ ${#missed[@]} -gt 0 ]; then
  echo "planted-bugs: not noticed: ${missed[*]}" >&2
  exit 1
fi
