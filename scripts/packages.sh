# shellcheck shell=bash
# Debian packages by name, and how to get the missing ones. Sourced by ./demo and ./test.

# What the lab, the demo and the bench run.
RUN_PACKAGES="iproute2 nftables ethtool procps util-linux nginx-light curl openssl wrk ca-certificates build-essential"
# What the tests need on top: the pinned compiler of the BPF object, traffic tools, and other
# implementations of HTTP, WebSocket and gRPC: odd clients and servers, and readers to compare with;
# systemd to verify units, Open vSwitch to read, change and restore, and what Antrea's tests ask with.
TEST_PACKAGES="clang-14 llvm-14 iperf3 tcpdump nodejs python3 python3-cryptography python3-grpcio python3-websockets nghttp2-client nghttp2-proxy systemd openvswitch-switch wget bind9-dnsutils"

# Others to compare with, for `tollgate bench --compare`; its tests leave out what is not installed.
# Suricata comes with scripts/suricata-chroot.sh.
BENCH_PACKAGES="haproxy libnginx-mod-stream"

# What a virtual machine with another kernel needs, in software emulation.
GUEST_PACKAGES="qemu-system-x86 busybox-static cpio kmod"

# Installs what is missing; asks the network only then. Services that come with a package (nginx)
# are not started: a temporary policy-rc.d forbids it unless the machine has one of its own.
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || {
        printf 'missing packages: %s (this machine has no apt-get; install them yourself)\n' "${missing[*]}" >&2
        return 1
    }
    printf '== installing Debian packages: %s\n' "${missing[*]}"
    local guard=/usr/sbin/policy-rc.d made=no status=0
    if [ ! -e "$guard" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod +x "$guard"
        made=yes
    fi
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; } || status=$?
    [ $made = no ] || rm -f "$guard"
    return $status
}
