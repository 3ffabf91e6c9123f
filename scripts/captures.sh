#!/bin/bash
# Records the small captures of crates/cli/tests/captures with real servers and clients, in two
# network namespaces of its own (tg-cap-*) that are removed at the end. Needs root, and nginx, curl,
# openssl, tcpdump, dnsmasq, dig, nghttpd, and Python's aioquic (which Debian 12 does not have; from PyPI). The
# committed captures were made by this script; a new run makes others (ports, times), and the expected
# outputs beside the tests must follow.
#
# captures.sh [DIRECTORY [NAME...]]: only the captures of these names.
set -euo pipefail

out=${1:-"$(dirname "$0")/../crates/cli/tests/captures"}
only=" ${*:2} "
work=$(mktemp -d /tmp/tg-cap-XXXXXX)
client=tg-cap-client
server=tg-cap-server
pids=()

cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    ip netns del "$client" 2>/dev/null || true
    ip netns del "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

in_client() { ip netns exec "$client" "$@"; }

# Waits until "$@" succeeds, two seconds at most.
wait_for() {
    for _ in {1..40}; do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.05
    done
    echo "did not come up: $*" >&2
    exit 1
}

network() {
    ip netns add "$client"
    ip netns add "$server"
    ip -n "$client" link add tgcap0 type veth peer name tgcap1 netns "$server"
    ip -n "$client" addr add 10.77.0.2/24 dev tgcap0
    ip -n "$server" addr add 10.77.0.1/24 dev tgcap1
    ip -n "$client" addr add fd77::2/64 dev tgcap0 nodad
    ip -n "$server" addr add fd77::1/64 dev tgcap1 nodad
    for ns in "$client" "$server"; do ip -n "$ns" link set lo up; done
    ip -n "$client" link set tgcap0 up
    ip -n "$server" link set tgcap1 up
}

servers() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -keyout "$work/key.pem" -out "$work/cert.pem" -subj /CN=www.example.com \
        -addext subjectAltName=DNS:www.example.com 2>/dev/null
    mkdir "$work/html"
    echo hello >"$work/html/index.html"
    echo one >"$work/html/v1"
    cat >"$work/nginx.conf" <<CONF
daemon off; pid $work/nginx.pid; error_log $work/error.log; user root;
events {}
http {
    access_log off;
    root $work/html;
    client_body_temp_path $work/b; proxy_temp_path $work/p; fastcgi_temp_path $work/f;
    uwsgi_temp_path $work/u; scgi_temp_path $work/s;
    server { listen 80; listen [::]:80; listen 443 ssl;
             ssl_certificate $work/cert.pem; ssl_certificate_key $work/key.pem; }
}
CONF
    ip netns exec "$server" nginx -p "$work" -c "$work/nginx.conf" 2>/dev/null &
    pids+=($!)
    ip netns exec "$server" dnsmasq --keep-in-foreground --no-resolv --no-hosts --conf-file=/dev/null \
        --pid-file= --listen-address=10.77.0.1 --bind-interfaces --address=/example.com/10.77.0.1 &
    pids+=($!)
    ip netns exec "$server" nghttpd --no-tls -d "$work/html" 8080 >/dev/null 2>&1 &
    pids+=($!)
    peers
    wait_for in_client curl -sf http://10.77.0.1/
    wait_for in_client curl -sf 'http://[fd77::1]/'
}

# What no package has: a mail server that knows STARTTLS and nothing else, and both sides of QUIC.
peers() {
    cat >"$work/smtp.py" <<'PY'
import socket, ssl, sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + "/cert.pem", sys.argv[1] + "/key.pem")
listener = socket.create_server(("10.77.0.1", 25))
while True:
    client, _ = listener.accept()
    try:
        client.sendall(b"220 mail.example.com\r\n")
        lines = client.makefile("rb")
        while line := lines.readline().upper():
            if line.startswith(b"STARTTLS"):
                client.sendall(b"220 go ahead\r\n")
                context.wrap_socket(client, server_side=True).recv(1)
                break
            client.sendall(b"250-mail.example.com\r\n250 STARTTLS\r\n")
    except OSError:
        pass
    client.close()
PY
    cat >"$work/quic.py" <<'PY'
import asyncio, sys

from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion

role, work, version = sys.argv[1:]
versions = [QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2]
configuration = QuicConfiguration(is_client=role == "client", alpn_protocols=["h3"])


async def main():
    if role == "server":
        configuration.supported_versions = versions
        configuration.load_cert_chain(work + "/cert.pem", work + "/key.pem")
        await serve("10.77.0.1", 443, configuration=configuration)
        await asyncio.Event().wait()
    configuration.supported_versions = [versions[int(version) - 1]]
    configuration.original_version = versions[int(version) - 1]
    configuration.server_name = "www.example.com"
    configuration.load_verify_locations(work + "/cert.pem")
    async with connect("10.77.0.1", 443, configuration=configuration) as connection:
        await connection.ping()


asyncio.run(main())
PY
    ip netns exec "$server" python3 "$work/smtp.py" "$work" &
    pids+=($!)
    ip netns exec "$server" python3 "$work/quic.py" server "$work" 0 &
    pids+=($!)
    wait_for ip netns exec "$server" bash -c 'ss -lun | grep -q 10.77.0.1:443 && ss -ltn | grep -q 10.77.0.1:25'
}

# record NAME FILTER COMMAND...: captures on the client's side while the command runs. On the client's side segments
# have checksums that are not filled in, as captures on the sending host always have.
record() {
    local name=$1 filter=$2
    shift 2
    [[ $only = "  " || $only = *" $name "* ]] || return 0
    ip netns exec "$client" tcpdump --immediate-mode -i "${DEVICE:-tgcap0}" -U -w "$work/$name.pcap" -Z root "${FLAGS[@]}" "$filter" 2>"$work/$name.log" &
    local pid=$!
    wait_for grep -q listening "$work/$name.log"
    in_client "$@" >/dev/null 2>&1 || true
    sleep 0.4
    kill "$pid"
    wait "$pid" || true
    cp "$work/$name.pcap" "$out/$name.pcap"
}

mkdir -p "$out"
network
servers
FLAGS=()
record http-keep-alive 'tcp port 80' \
    curl -s -H 'Host: api.example.com' http://10.77.0.1/v1 http://10.77.0.1/v1?key=secret
record http-denied 'tcp port 80' \
    curl -s -H 'Host: api.example.com' http://10.77.0.1/v1 http://10.77.0.1/admin
record https 'tcp port 443' \
    curl -sk --resolve www.example.com:443:10.77.0.1 https://www.example.com/
record ipv6 'tcp port 80' curl -s 'http://[fd77::1]/v1'
record dns 'udp port 53' dig +tries=1 +time=1 @10.77.0.1 www.example.com A
record refused 'tcp port 81' curl -s http://10.77.0.1:81/
record unread 'tcp port 80' bash -c 'exec 3<>/dev/tcp/10.77.0.1/80; printf "\x00\x01\x02 neither\r\n\r\n" >&3; cat <&3'
record h2c 'tcp port 8080' curl -s --http2-prior-knowledge -H 'Host: api.example.com' http://10.77.0.1:8080/v1
record grpc 'tcp port 8080' curl -s --http2-prior-knowledge -H 'Content-Type: application/grpc' -H 'TE: trailers' \
    --data-binary @- -H 'Host: api.example.com' http://10.77.0.1:8080/shop.v1.Catalog/GetItem
record starttls 'tcp port 25' openssl s_client -starttls smtp -connect 10.77.0.1:25 -servername mail.example.com
record ntp 'udp port 123' bash -c 'printf "\x1b%047d" 0 >/dev/udp/10.77.0.1/123'
record quic 'udp port 443' python3 "$work/quic.py" client "$work" 1
record quic-v2 'udp port 443' python3 "$work/quic.py" client "$work" 2
DEVICE=any record cooked 'tcp port 80' curl -s http://10.77.0.1/v1
FLAGS=(--time-stamp-precision=nano)
record nanoseconds 'tcp port 80' curl -s http://10.77.0.1/v1
FLAGS=(-s 60)
record cut 'tcp port 80' curl -s http://10.77.0.1/v1
ls -l "$out"
