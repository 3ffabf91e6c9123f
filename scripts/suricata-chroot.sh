#!/usr/bin/env bash
# Makes a directory with a small Debian 13 that has Suricata 7, for
# `tollgate lab run offload-blind --engine suricata --suricata-root DIR`, for scripts/suricata-cases.sh, and for the
# tests that compare with Suricata if TOLLGATE_SURICATA_ROOT is DIR. Run as root on Debian; takes about a
# minute and 500 MB. Removing the directory removes all of it.
set -euo pipefail

die() { printf 'suricata-chroot: %s\n' "$*" >&2; exit 1; }

[ $# = 1 ] || die "usage: scripts/suricata-chroot.sh DIR"
root=$1
[ "$(id -u)" = 0 ] || die "debootstrap needs root"
if [ -x "$root/usr/bin/suricata" ]; then
    printf 'Suricata is there already: %s\n' "$root"
    exit 0
fi
[ ! -e "$root" ] || [ -z "$(ls -A "$root")" ] || die "$root is not empty, and has no Suricata"

cd "$(dirname "$0")"
. ./packages.sh
install_packages debootstrap

# minbase: the packages that Suricata depends on, and no more.
cd "$OLDPWD"
debootstrap --variant=minbase --include=suricata trixie "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
chroot "$root" suricata -V
