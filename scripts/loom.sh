#!/usr/bin/env bash
# Runs the mailbox (doorbell, admission, reply) and the keydir's readers and writer in every interleaving
# up to a bound, with loom.
#
#   scripts/loom.sh            all models
#   scripts/loom.sh k9         those whose name has this in it
#
# Needs cargo and crates.io. The models are in `loom/`, which compiles the library's own sources.
set -euo pipefail
cd "$(dirname "$0")/../loom"
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-../target}/loom
export CARGO_TARGET_DIR
cargo run --release --quiet -- "$@"
