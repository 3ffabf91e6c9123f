"""Runs odd but honest clients from the pod: each must get its answer, and soon.

Arguments: where to write the rows, the gateway's MAC address, the CA's certificate."""

import http.client
import os
import shlex
import socket
import ssl
import struct
import subprocess
import tempfile
import time
from functools import partial

import hello_rows
import library_rows
import raw
import table
import tls_rows
from raw import ACK, FIN, PSH
from table import API, HTTP, OUTSIDE, dial, request

# Longer than any answer takes, shorter than a stall that TCP's timers would end.
SOON = 8.0
GET = request("/v2/a")
# As clients of search engines ask.
QUERY = b'{"query":{"match":{"title":"two words"}}}'
SEARCH = request("/v2/a", fields=["Content-Type: application/json", f"Content-Length: {len(QUERY)}"], body=QUERY)
NGINX_TLS, NODE_TLS, OPENSSL, RETRY = 8444, 8446, 8445, 8448
HERE = os.path.dirname(os.path.abspath(__file__))


def answered(client, count=1, word=b" 200 ", data=b""):
    """Reads until so many answers have come, those in `data` included."""
    return hear(client, count, word, data)[0]


def hear(client, count, word, data=b""):
    """The same, and what came."""
    client.settimeout(SOON)
    while data.count(b"HTTP/1.1" + word) + data.count(b"HTTP/1.0" + word) < count:
        try:
            piece = client.recv(1 << 16)
        except OSError as error:
            return f"{type(error).__name__} after {data[:60]!r}", data
        if not piece:
            return f"closed after {data[:60]!r}", data
        data += piece
    return "ok", data


def send(dport, *parts, count=1, word=b" 200 ", half_close=False, mss=None, pause=0.0):
    def run(ip, port):
        client = dial(ip, port, dport, mss)
        for part in parts:
            client.sendall(part)
            time.sleep(pause)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        said = answered(client, count, word)
        client.close()
        return said

    return run


def nothing(dport, reset):
    """A connection that is closed without data, as by a health check; the next one is served."""

    def run(ip, port):
        client = dial(ip, port, dport)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        return send(dport, GET)(ip, 0)

    return run


def upload(dport, head, body, wait):
    """Waits for 100 Continue before the body, if asked to."""

    def run(ip, port):
        client = dial(ip, port, dport)
        client.sendall(head)
        heard = b""
        if wait:
            said, heard = hear(client, 1, b" 100 ")
            if said != "ok":
                return f"no 100: {said}"
        client.sendall(body)
        return answered(client, data=heard)

    return run


def switch(ip, port):
    """An upgrade that the server agrees to; then bytes that are no HTTP, both ways."""
    client = dial(ip, port, HTTP["node"])
    fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    client.sendall(request("/v2/switch", fields=fields))
    said = answered(client, word=b" 101 ")
    if said != "ok":
        return said
    for size in (1, 100, 70_000):
        data = os.urandom(size)
        client.sendall(data)
        back = b""
        while len(back) < size:
            back += client.recv(size - len(back)) or exit_with("closed")
        if back != data:
            return "other bytes came back"
    return "ok"


def cut_everywhere(dport):
    """A connection for each place where a head can be cut in two."""

    def run(ip, port):
        for at in range(1, len(GET)):
            said = send(dport, GET[:at], GET[at:])(ip, port if at == 1 else 0)
            if said != "ok":
                return f"cut at {at}: {said}"
        return "ok"

    return run


def probed(dport, before, between):
    """An idle connection whose kernel sends keep-alive probes: before the first request, and later."""

    def run(ip, port):
        client = dial(ip, port, dport)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            client.setsockopt(socket.IPPROTO_TCP, option, 1)
        for pause in (before, between):
            time.sleep(pause)
            client.sendall(GET)
            said = answered(client)
            if said != "ok":
                return said
        client.close()
        return "ok"

    return run


def exit_with(word):
    raise OSError(word)


def socket_rows():
    nginx, node, python = HTTP["nginx"], HTTP["node"], HTTP["python"]
    long = request("/v2/a", fields=[f"X-{i}: {'a' * 1000}" for i in range(20)])
    chunked = request("/up/a", method="POST", fields=["Transfer-Encoding: chunked"])
    body = b"".join(b"%x\r\n%s\r\n" % (n, b"c" * n) for n in (1, 17, 5000, 65000)) + b"0\r\n\r\n"
    half = len(body) // 2
    expect = request("/up/a", method="PUT", fields=["Expect: 100-continue", "Content-Length: 300000"])
    plain = request("/up/a", method="POST", fields=["Content-Length: 300000"])
    big = request("/up/a", method="PUT", fields=["Content-Length: 4000000"])
    rows = {}
    for name, port in HTTP.items():
        rows |= {
            f"byte by byte, {name}": send(port, *[bytes([b]) for b in GET]),
            f"slow, {name}": send(port, GET[:9], GET[9:30], GET[30:-1], GET[-1:], pause=0.3),
            f"MSS of 88, {name}": send(port, long, mss=88),
            f"head of 20 KiB, {name}": send(port, long),
            f"half-closed, {name}": send(port, GET, half_close=True),
            f"20 requests in a pipeline, {name}": send(port, GET * 20, count=20 if name != "python" else 1),
            f"Host with port, {name}": send(port, request("/v2/a", host=f"{API}:{port}")),
            f"Host with trailing dot, {name}": send(port, request("/v2/a", host=f"{API}.")),
            f"Host in upper case, {name}": send(port, request("/v2/a", host=API.upper())),
            f"absolute form, {name}": send(port, request(f"http://{API}/v2/a")),
            f"HTTP/1.0, {name}": send(port, request("/v2/a", version="HTTP/1.0")),
            f"HTTP/1.0 with keep-alive, {name}": send(port, request("/v2/a", version="HTTP/1.0", fields=["Connection: keep-alive"])),
            f"HEAD, {name}": send(port, request("/v2/a", method="HEAD")),
            f"GET with JSON in its body, {name}": send(port, SEARCH),
            f"100 fields, {name}": send(port, request("/v2/a", fields=[f"x-{i}: y" for i in range(90)])),
            f"empty values, {name}": send(port, request("/v2/a", fields=["Accept:", "X-Empty: "])),
            f"values of high bytes, {name}": send(port, request("/v2/a", fields=["X-Name: \xc3\xa4\xc3\xb6"])),
            f"blanks around values, {name}": send(port, request("/v2/a", fields=["X-Tab:\tvalue\t ", "X-None:value"])),
            f"encoded characters, {name}": send(port, request("/v2/a%20b/c%C3%A4?q=%2F..%2F&r=a+b;c#".rstrip("#"))),
            f"cut in two at every byte, {name}": cut_everywhere(port),
            f"keep-alive probes before the first request, {name}": probed(port, 2.5, 0),
            f"query of 2000 bytes, {name}": send(port, request("/v2/a?q=" + "q" * 2000)),
            f"query of 3000 bytes, {name}": send(port, request("/v2/a?q=" + "q" * 3000)),
            f"cookie of 3000 bytes behind Host, {name}": send(port, request("/v2/a", fields=["Cookie: c=" + "c" * 3000])),
            f"cookie of 3000 bytes before Host, {name}": send(port, request("/v2/a", host=None, fields=["Cookie: c=" + "c" * 3000, f"Host: {API}"])),
            f"long query, {name}": send(port, request("/v2/a?" + "q=1&" * 1500)),
            f"closed without data, {name}": nothing(port, False),
            f"reset without data, {name}": nothing(port, True),
        }
    for name, port in (("nginx", nginx), ("node", node)):
        rows |= {
            f"chunked upload, {name}": send(port, chunked + body),
            f"GET with JSON, then GET, {name}": send(port, SEARCH + GET, count=2),
            f"GET with JSON in pieces, {name}": send(port, *[SEARCH[i : i + 11] for i in range(0, len(SEARCH), 11)], GET, count=2, pause=0.01),
            f"chunked upload in pieces, {name}": send(port, chunked, *[body[i : i + 977] for i in range(0, len(body), 977)]),
            f"chunked upload, cut in half, {name}": send(port, chunked + body[:half], body[half:], pause=0.1),
            f"chunked upload with trailer, {name}": send(port, chunked + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"),
            f"upload by length, {name}": send(port, plain, b"u" * 300_000),
            f"upload of 4 MB, {name}": send(port, big + b"u" * 4_000_000),
            f"upload, then GET, {name}": send(port, plain + b"u" * 300_000 + GET, count=2),
            f"an empty line behind an upload, {name}": send(port, plain + b"u" * 300_000, b"\r\n" + GET, count=2),
            f"upload of nothing, {name}": send(port, request("/up/a", method="POST", fields=["Content-Length: 0"]) + GET, count=2),
            f"100-continue, {name}": upload(port, expect, b"u" * 300_000, True),
            f"100-continue without waiting, {name}": upload(port, expect, b"u" * 300_000, False),
        }
    rows["WebSocket upgrade"] = switch
    rows["keep-alive probes between requests"] = probed(nginx, 0, 2.5)
    rows["100-continue, python"] = upload(python, expect, b"u" * 300_000, True)
    return rows


def raw_rows():
    """Clients whose TCP is odd; each function gets a connection and sends GET."""
    n = len(GET)

    def one_byte(c):
        for at in range(n):
            c.packet(at, GET[at : at + 1])

    def backwards(c):
        for at in reversed(range(0, n, 7)):
            c.packet(at, GET[at : at + 7])

    def twice(c):
        for at in range(0, n, 9):
            c.packet(at, GET[at : at + 9])
            c.packet(at, GET[at : at + 9])

    def again_from_start(c):
        for end in range(10, n, 10):
            c.packet(0, GET[:end])
        c.packet(0, GET)
        c.packet(0, GET)

    def overlapping(c):
        for at in range(0, n, 8):
            c.packet(at, GET[at : at + 20])

    def probes(c):
        c.packet(-1, b"", ACK)
        c.packet(-1, b"\0", ACK)
        c.packet(0, GET[:20])
        c.packet(19, b"", ACK)
        c.packet(19, GET[19:20], ACK)
        c.packet(20, GET[20:])

    def lost(c):
        c.packet(20, GET[20:])
        c.step()
        c.packet(0, GET[:20])

    def lost_on_the_way(c):
        c.packet(0, GET[:20], ttl=1)
        c.packet(20, GET[20:])
        c.step()
        c.packet(0, GET[:20])

    def bad_checksum(c):
        c.packet(0, GET, bad=True)
        c.step()
        c.packet(0, GET)

    def fin_with_data(c):
        c.packet(0, GET, ACK | PSH | FIN)

    def fin_before_data(c):
        c.packet(n, b"", ACK | FIN)
        c.step()
        c.packet(0, GET)
        c.packet(n, b"", ACK | FIN)

    def small_window(c):
        c.packet(0, GET, window=4)
        c.step()
        c.packet(n, b"", ACK)

    def urgent_pointer_without_flag(c):
        c.packet(0, GET, urg=3)

    return {
        "one byte a segment": one_byte,
        "backwards": backwards,
        "every segment twice": twice,
        "all again and longer": again_from_start,
        "overlapping": overlapping,
        "keep-alive probes": probes,
        "a loss": lost,
        "a loss behind the node": lost_on_the_way,
        "a bad checksum, then well": bad_checksum,
        "FIN with the data": fin_with_data,
        "FIN before the data": fin_before_data,
        "a small window": small_window,
        "an urgent pointer without URG": urgent_pointer_without_flag,
    }


def raw_run(wire, function, dport, **setup):
    def run(ip, port):
        c = raw.Connection(wire, ip, port, dport, **setup)
        c.connect()
        function(c)
        c.wait(lambda: b" 200 " in c.data or c.reset, SOON)
        c.packet(c.at_end, b"", raw.RST | ACK)
        return "ok" if b" 200 " in c.data else f"reset {c.reset} {c.data[:60]!r}"

    return run


def command(line, word, ip, port):
    """A shell line: {at} is the server's address in brackets if need be, {ca} the CA."""
    address = OUTSIDE[ip] if ip == 4 else f"[{OUTSIDE[ip]}]"
    place = tempfile.mkdtemp(prefix="tg-honest-")
    line = line.format(at=address, bare=OUTSIDE[ip], ca=CA, dir=place, api=API)
    try:
        output = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, stdin=subprocess.DEVNULL, timeout=20, text=True, errors="replace")
    except subprocess.TimeoutExpired:
        return "stalled"
    finally:
        subprocess.run(["rm", "-rf", place])
    said = output.stdout + output.stderr
    return "ok" if word in said else f"{output.returncode} {said[-160:]!r}"


def command_rows():
    curl = "curl -sS --max-time 8 --cacert {ca} --connect-to ::{at}: -o /dev/null -w 'code %{{http_code}}' "
    http1, http2 = f"http://{API}:8081/v2/a", f"https://{API}:{NGINX_TLS}/v2/a"
    rows = {}
    for name, options in {
        "curl HTTP/1.0": "-0 " + http1,
        "curl twice": f"{http1} -o /dev/null {http1}",
        "curl HEAD": "-I " + http1,
        "curl compressed": "--compressed " + http1,
        "curl Fast Open": "--tcp-fastopen " + http1,
        "curl range": "-r 0-1 " + http1,
        "curl form": f"-F a=@/etc/hostname http://{API}:8082/up/a",
        "curl POST": f"-d a=b http://{API}:8082/up/a",
        "curl PUT of 3 MB with Expect": f"-T - -H 'Expect: 100-continue' http://{API}:8082/up/a",
        "curl POST chunked": f"-H 'Transfer-Encoding: chunked' -d @/etc/services http://{API}:8082/up/a",
        "curl path as is": f"--path-as-is http://{API}:8081/v2/a.b/..c/x",
        "curl TLS 1.2": "--tls-max 1.2 " + http2,
        "curl TLS 1.3": "--tlsv1.3 " + http2,
        "curl TLS, HTTP/1.1 only": "--http1.1 " + http2,
        "curl TLS without ALPN": "--no-alpn " + http2,
        "curl TLS to Node": f"https://{API}:{NODE_TLS}/v2/a",
        "curl TLS, upper case": f"https://{API.upper()}:{NGINX_TLS}/v2/a",
        "curl TLS, trailing dot": f"https://{API}.:{NGINX_TLS}/v2/a",
        "curl TLS, one curve": "--curves P-384 " + http2,
    }.items():
        rows[name] = (curl + options + (" < <(head -c 3000000 /dev/zero)" if "-T -" in options else ""), "code 200")
    client = "echo | timeout 8 openssl s_client -connect {at}:%d -servername {api} -CAfile {ca} %s 2>&1"
    for name, port, options in [
        ("TLS 1.2", NGINX_TLS, "-tls1_2"),
        ("TLS 1.3", NGINX_TLS, "-tls1_3"),
        ("ALPN", NGINX_TLS, "-alpn http/1.1,h2"),
        ("a hello of 3 kB", NGINX_TLS, "-alpn " + ",".join(f"x-{i:02}-{'y' * 240}" for i in range(12)) + ",http/1.1"),
        ("small records", NGINX_TLS, "-max_send_frag 512"),
        ("many groups", NGINX_TLS, "-groups X25519:P-256:X448:P-521:P-384"),
        ("no tickets", NGINX_TLS, "-no_ticket"),
        ("to Node", NODE_TLS, "-tls1_3"),
        ("upper case", NGINX_TLS, f"-servername {API.upper()}"),
        ("status request", NGINX_TLS, "-status"),
        ("HelloRetryRequest", RETRY, "-groups X25519:P-521 -tls1_3"),
    ]:
        rows[f"openssl {name}"] = (client % (port, options), "Verify return code: 0")
    for version in ("-tls1_2", "-tls1_3"):
        talk = "(printf 'GET /v2/a HTTP/1.1\\r\\nHost: {api}\\r\\nConnection: close\\r\\n\\r\\n'; sleep 1) | "
        first = talk + "timeout 8 openssl s_client -connect {at}:%d -servername {api} -CAfile {ca} %s -sess_out {dir}/s >/dev/null 2>&1; "
        again = client % (NODE_TLS, f"{version} -sess_in {{dir}}/s")
        rows[f"openssl resumed {version}"] = (first % (NODE_TLS, version) + again, "Reused, TLS")
    rows["node clients"] = (f"node {shlex.quote(HERE)}/honest.js {{bare}} {{ca}}", "all well")
    return rows


def python_client(ip, port):
    """http.client over TLS, one connection for several requests."""
    context = ssl.create_default_context(cafile=CA)
    connection = http.client.HTTPSConnection(API, NGINX_TLS, context=context, timeout=SOON)
    plain = dial(ip, port, NGINX_TLS)
    connection.sock = context.wrap_socket(plain, server_hostname=API)
    for method, path in [("GET", "/v2/a"), ("POST", "/up/a"), ("HEAD", "/v2/a")]:
        connection.request(method, path, body="x" * 1000 if method == "POST" else None)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            return f"{method}: {response.status}"
    return "ok"


def hello_in(dport, cutter):
    """A hello in an unusual shape, answered by a ServerHello."""

    def run(ip, port):
        client = dial(ip, port, dport)
        for part in cutter(tls_rows.hello(API)):
            client.sendall(part)
        client.settimeout(SOON)
        answer = client.recv(16)
        client.close()
        return "ok" if answer[:1] == b"\x16" else f"answer {answer!r}"

    return run


def tls_client_rows():
    return {
        "hello byte by byte": lambda h: [bytes([b]) for b in h],
        "hello in records of 50": lambda h: [tls_rows.cut_records(h, *range(50, len(h) - 5, 50))],
        "hello in one-byte records": lambda h: [tls_rows.cut_records(h, *range(1, len(h) - 5))],
        "hello of 2.3 kB": lambda h: [tls_rows.one(tls_rows.sni(API), last=tls_rows.extension(60000, b"\0" * (2300 - len(h))))],
        "hello of 15 KiB": lambda h: [tls_rows.one(tls_rows.sni(API), last=tls_rows.extension(60000, b"\0" * 15000))],
        "hello with the name last": lambda h: [tls_rows.one(last=tls_rows.sni(API))],
        "hello in upper case": lambda h: [tls_rows.one(tls_rows.sni(API.upper()))],
        "hello with trailing dot": lambda h: [tls_rows.one(tls_rows.sni(API + "."))],
    }


def main():
    global CA
    out, gateway, CA = table.arguments()
    rows = table.Table(out, first_port=42000)
    wire = raw.Wire("eth0", bytes.fromhex(gateway.replace(":", "")))
    for name, run in socket_rows().items():
        rows.add("honest", name, "http", run)
    for name, function in raw_rows().items():
        rows.add("honest", f"{name}, own TCP", "nginx", raw_run(wire, function, HTTP["nginx"]))
        rows.add("honest", f"{name}, wrapping", "node", raw_run(wire, function, HTTP["node"], isn=raw.MASK - 20))
        stamped = raw_run(wire, function, HTTP["lenient"], timestamps=True)
        rows.add("honest", f"{name}, timestamps", "lenient", stamped)
    for name, (line, word) in command_rows().items():
        rows.add("honest", name, "command", partial(command, line, word))
    rows.add("honest", "http.client over TLS", "nginx", python_client)
    for name, cutter in tls_client_rows().items():
        rows.add("honest", name, "openssl", hello_in(OPENSSL, cutter))
    hello_rows.honest(rows)
    library_rows.add(rows)
    rows.wait()


main()
