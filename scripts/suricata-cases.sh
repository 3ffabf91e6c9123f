#!/usr/bin/env bash
# Records what Suricata 7 does in the cases of crates/dropin/tests/suricata_cases: table.tsv there and
# docs/suricata-cases.md. DIR is a Debian 13 made by scripts/suricata-chroot.sh. Run as root.
set -euo pipefail

die() { printf 'suricata-cases: %s\n' "$*" >&2; exit 1; }

[ $# = 1 ] || die "usage: scripts/suricata-cases.sh DIR"
[ "$(id -u)" = 0 ] || die "chroot needs root"
root=$(realpath "$1")
[ -x "$root/usr/bin/suricata" ] || die "no Suricata in $root; scripts/suricata-chroot.sh $1 puts it there"

cd "$(dirname "$0")/.."
TOLLGATE_SURICATA_ROOT=$root TOLLGATE_RECORD=1 cargo test -p tollgate-dropin --test suricata_cases verdicts
# What is recorded must have its reasons.
cargo test -p tollgate-dropin --test suricata_cases
