#!/usr/bin/env bash
# Passes all tests. On Debian, as root, it installs what the tests of the real kernel need (file systems
# to cut the power of, strace to deny io_uring); elsewhere those tests say what they skipped, and why.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(e2fsprogs util-linux strace xfsprogs)
missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
    missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi
cargo test --all-features
