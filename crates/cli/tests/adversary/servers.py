"""Servers of the adversary test: each writes down every request that it acts on.

A record is one JSON line: the server, the client's port, the method, and every host and path that
the server could be said to have acted on. Judging them is the test's part.
"""

import asyncio
import concurrent.futures
import http.server
import json
import logging
import posixpath
import re
import socket
import socketserver
import ssl
import sys
import threading
import urllib.parse

import grpc
import websockets
from cryptography.exceptions import InvalidTag

import recorded

HTTP_PORT, LENIENT_PORT, LENIENT_TLS_PORT = 8083, 8084, 8447
OPENSSL_PORT, RETRY_PORT = 8445, 8448
# No rule allows these; anything that arrives is a forbidden request.
DENIED_TCP, DENIED_UDP, ALLOWED_UDP = 9015, 7005, 7000
# Only QUIC under an allowed name may come here.
QUIC_PORT = 7443
WEBSOCKET_PORT, GRPC_PORT = 8086, 8087
# Seconds between two pings to a WebSocket's client.
PING_INTERVAL = 0.5
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

OUT = open(sys.argv[1], "a", buffering=1)
LOCK = threading.Lock()


def record(server, peer, method, hosts, paths):
    line = {"server": server, "port": peer, "method": method, "hosts": hosts, "paths": paths}
    with LOCK:
        OUT.write(json.dumps(line) + "\n")


class Stock(http.server.SimpleHTTPRequestHandler):
    """Python's http.server as `python3 -m http.server --protocol HTTP/1.1` runs it."""

    protocol_version = "HTTP/1.1"

    def send_head(self):
        path = posixpath.normpath(urllib.parse.unquote(self.path.split("?")[0].split("#")[0]))
        record("python", self.client_address[1], self.command, [self.headers.get("Host", "")], [path])
        return super().send_head()

    def translate_path(self, path):
        return "/etc/hostname"

    def read_body(self):
        left = int(self.headers.get("Content-Length", 0))
        self.rfile.read(left)
        record("python", self.client_address[1], self.command, [self.headers.get("Host", "")], [self.path])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = read_body

    def log_message(self, *args):
        pass


def readings(target):
    """Every path that some server would take from a request target."""
    target = target.split(b"?")[0]
    found = []
    once = urllib.parse.unquote_to_bytes(target)
    for path in (target, once, urllib.parse.unquote_to_bytes(once)):
        for cut in (path, re.split(rb"[;#\0]", path)[0], path.replace(b"\\", b"/")):
            # As RFC 3986 has it, and as a file system has it.
            flat = posixpath.normpath(re.sub(rb"/+", b"/", cut)) or b"/"
            slash = b"/" if cut.endswith(b"/") and flat != b"/" else b""
            found.append(flat + slash)
    return sorted({p.decode("latin-1") for p in found})


# How a lenient server may find a body's end when a request says several things, or not look for one
# where most requests have none.
FRAMINGS = ("any-chunked", "first-length", "last-length", "exact-chunked", "no-body")


def head(lines):
    """Fields of a head, as a lenient reader takes them."""
    fields = []
    for line in lines:
        if line[:1] in b" \t" and line and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + b" " + line.strip())
            continue
        name, _, value = line.partition(b":")
        fields.append((name.strip(b" \t\0\x0b\x0c\r").lower().replace(b"_", b"-"), value.strip()))
    return fields


def lenient_int(text):
    match = re.match(rb"[+ \t]*(?:0x([0-9a-f]+)|([0-9]+))", text, re.I)
    if not match:
        return 0
    return int(match[1], 16) if match[1] else int(match[2])


def body_end(data, at, fields, framing):
    """Where the body ends; None if it has not ended yet."""
    if framing == "no-body":
        return at
    codings = [v.lower() for n, v in fields if n == b"transfer-encoding"]
    lengths = [lenient_int(p) for n, v in fields if n == b"content-length" for p in v.split(b",")]
    chunked = {
        "any-chunked": any(b"chunked" in c for c in codings),
        "exact-chunked": bool(codings) and codings[-1] == b"chunked",
        "last-length": bool(codings) and not lengths,
        "first-length": bool(codings) and not lengths,
    }[framing]
    if chunked:
        while True:
            line = re.compile(rb"[^\n]*\n").match(data, at)
            if not line:
                return None
            size = re.match(rb"[ \t]*(?:0x)?([0-9a-f]+)", line[0], re.I)
            at = line.end()
            # 32 bits: what wraps is read as what is left of it.
            size = int(size[1], 16) & 0xFFFFFFFF if size else 0
            if size == 0:
                end = re.compile(rb"(?:[^\r\n]+\r?\n)*\r?\n").match(data, at)
                return end.end() if end else None
            at += size
            if at > len(data):
                return None
            at = re.compile(rb"\r?\n?").match(data, at).end()
    length = 0
    if lengths:
        length = lengths[0] if framing != "last-length" else lengths[-1]
    return at + length if at + length <= len(data) else None


# A CR alone ends a line only once it is clear that no LF follows.
ANY_END = rb"(?>\r\n|\n|\r(?=[^\n]))"
HEAD_END = {"lf": re.compile(rb"\r?\n\r?\n"), "cr": re.compile(ANY_END + rb"{2}")}
LINE_END = {"lf": re.compile(rb"\r?\n"), "cr": re.compile(ANY_END)}
SIMPLE = re.compile(rb"[A-Za-z]+[ \t]+(\S+)[ \t]*\r?\n")


def acted_on(data, framing, lines):
    """Requests in a stream that a lenient reader would act on: (method, hosts, paths)."""
    at = 0
    while True:
        at = re.compile(rb"[\r\n\t \0]*").match(data, at).end()
        simple = SIMPLE.match(data, at)
        if simple:
            yield "0.9", [], readings(simple[1])
            at = simple.end()
            continue
        end = HEAD_END[lines].search(data, at)
        if not end:
            return
        first, *rest = LINE_END[lines].split(data[at : end.start()])
        fields = head(rest)
        words = re.split(rb"[ \t\x0b\x0c\r\0]+", first)
        target = words[1] if len(words) > 1 else b""
        hosts = [v for n, v in fields if n == b"host"]
        absolute = re.match(rb"[a-z][a-z0-9+.-]*://([^/?#]*)(.*)", target, re.I)
        if absolute:
            hosts.append(absolute[1])
            target = absolute[2] or b"/"
        hosts = [h.decode("latin-1") for host in hosts for h in host.split(b"@")]
        method = words[0].decode("latin-1")
        if framing == "no-body":
            # What is in front of the method may be the body; not what begins as no target does.
            method = re.search("[A-Z]*$", method)[0] or "GET"
            if method not in ("GET", "HEAD") or target[:1] not in (b"/", b"\\", b"%"):
                return
        yield method, hosts, readings(target)
        if b"PRI" == words[0]:
            return
        at = body_end(data, end.end(), fields, framing)
        if at is None:
            return


class Lenient(socketserver.BaseRequestHandler):
    """Accepts what no server should, in every way that some server does."""

    def handle(self):
        data, known, answered = b"", set(), 0
        self.request.settimeout(20)
        while True:
            try:
                piece = self.request.recv(1 << 16)
            except OSError:
                return
            data += piece
            most = 0
            for framing in FRAMINGS:
                for lines in ("lf", "cr"):
                    found = list(acted_on(data, framing, lines))
                    most = max(most, len(found))
                    for number, (method, hosts, paths) in enumerate(found):
                        key = (number, method, tuple(hosts), tuple(paths))
                        if key not in known:
                            known.add(key)
                            record("lenient", self.client_address[1], method, hosts, paths)
            try:
                for _ in range(answered, most):
                    self.request.sendall(ANSWER)
            except OSError:
                return
            answered = max(answered, most)
            if not piece:
                return


def names_in(data):
    """Every server name of the first hello. A lenient reader skips what precedes the first record,
    does not look at the types of records, and passes over other messages."""
    start = data.find(b"\x16\x03")
    payload, at = b"", start
    while start >= 0 and at + 5 <= len(data):
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        payload += data[at + 5 : at + 5 + size]
        at += 5 + size
    at = 0
    while at + 4 <= len(payload):
        size = int.from_bytes(payload[at + 1 : at + 4], "big")
        body = payload[at + 4 : at + 4 + size]
        if payload[at] == 1 and len(body) == size:
            return re.findall(rb"(?:[a-zA-Z0-9_-]+\.)+(?:com|net|org)", body)
        at += 4 + size
    return []


class LenientTls(socketserver.BaseRequestHandler):
    """Reads a hello without any of the checks, and would serve any name in it."""

    def handle(self):
        data = b""
        self.request.settimeout(20)
        while True:
            try:
                piece = self.request.recv(1 << 16)
            except OSError:
                piece = b""
            data += piece
            names = names_in(data)
            if names or not piece:
                break
        if names:
            hosts = [n.decode() for n in names]
            record("lenient-tls", self.client_address[1], "TLS", hosts, [])
        try:
            # An alert: whoever waits for an answer has one.
            self.request.sendall(b"\x15\x03\x03\0\2\2\x28")
            while self.request.recv(1 << 16):
                pass
        except OSError:
            pass


class OpenSsl(socketserver.BaseRequestHandler):
    """OpenSSL reads the hello; the name is written down when OpenSSL asks for its certificate."""

    def handle(self):
        peer = self.client_address[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2], sys.argv[3])
        if self.server.server_address[1] == RETRY_PORT:
            # No client sends a share of this group at first: each is asked for a second hello.
            context.set_ecdh_curve("secp521r1")
        context.sni_callback = lambda _, name, __: record("openssl", peer, "TLS", [name or ""], [])
        self.request.settimeout(20)
        try:
            context.wrap_socket(self.request, server_side=True).recv(1)
        except (OSError, ValueError):
            pass


class Denied(socketserver.BaseRequestHandler):
    """Nothing may arrive here."""

    def handle(self):
        record("denied-tcp", self.client_address[1], "CONNECTED", [], [])


class Udp(threading.Thread):
    """Writes down datagrams by their port; sends them back."""

    def __init__(self, port, name):
        super().__init__(daemon=True)
        self.name_of_record = name
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.bind(("::", port))

    def run(self):
        while True:
            data, peer = self.socket.recvfrom(1 << 16)
            record(self.name_of_record, peer[1], "UDP", [], [data[:64].decode("latin-1")])
            self.socket.sendto(data, peer)


class Quic(Udp):
    """Opens Initial packets and writes down the name once a hello is complete, whichever of two
    versions of a byte came first. Acts on whatever is no Initial packet, as on a datagram."""

    def __init__(self, port):
        super().__init__(port, "quic")
        self.flights = {}

    def run(self):
        while True:
            data, peer = self.socket.recvfrom(1 << 16)
            try:
                self.read(recorded.Initial(data), peer)
            except (AssertionError, IndexError, ValueError, InvalidTag):
                record("quic", peer[1], "UDP", [], [data[:64].decode("latin-1")])
            self.socket.sendto(data, peer)

    def read(self, packet, peer):
        pieces, known = self.flights.setdefault((peer[:2], packet.dcid), ([], set()))
        pieces += packet.crypto()
        for order in (pieces, pieces[::-1]):
            names = recorded.NAMES.findall(recorded.stream(order) or b"")
            hosts = [n.decode() for n in names if n not in known]
            known.update(names)
            if hosts:
                record("quic", peer[1], "TLS", hosts, [])


def websocket(ready):
    """A WebSocket server that sends back every message, and pings."""

    async def echo(ws):
        peer, host = ws.remote_address[1], ws.request_headers.get("Host", "")
        record("websockets", peer, "GET", [host], [ws.path.split("?")[0]])
        async for message in ws:
            await ws.send(message)

    async def main():
        options = {"max_size": None, "ping_interval": PING_INTERVAL}
        async with websockets.serve(echo, None, WEBSOCKET_PORT, **options):
            ready.set()
            await asyncio.Future()

    # Handshakes that end half-way are expected.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    asyncio.run(main())


class Calls(grpc.GenericRpcHandler):
    """Any method; its name tells the kind. A message is any bytes."""

    def service(self, details):
        method = details.method
        kind = next((k for k in KINDS if method.endswith(k)), "unary_unary")
        return getattr(grpc, f"{kind}_rpc_method_handler")(lambda ask, context: KINDS[kind](method, ask, context))


def note_call(method, context):
    peer = int(context.peer().rsplit(":", 1)[1])
    # grpcio does not tell the authority; the path decides.
    record("grpc", peer, "POST", [], [method])


def unary(method, ask, context):
    note_call(method, context)
    if method.endswith("failing"):
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing there")
    context.set_trailing_metadata([("sum", str(len(ask)))])
    return ask


def answers(method, ask, context):
    note_call(method, context)
    for _ in range(100):
        yield ask


def questions(method, asks, context):
    note_call(method, context)
    return b"".join(asks)


def both(method, asks, context):
    note_call(method, context)
    yield from asks


KINDS = {"unary_unary": unary, "unary_stream": answers, "stream_unary": questions, "stream_stream": both}


def grpc_server():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((Calls(),))
    assert server.add_insecure_port(f"[::]:{GRPC_PORT}"), "the gRPC port is taken"
    server.start()
    return server


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512


def main():
    for port, handler in [
        (HTTP_PORT, Stock),
        (LENIENT_PORT, Lenient),
        (LENIENT_TLS_PORT, LenientTls),
        (OPENSSL_PORT, OpenSsl),
        (RETRY_PORT, OpenSsl),
        (DENIED_TCP, Denied),
    ]:
        server = Server(("::", port), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    Udp(DENIED_UDP, "denied-udp").start()
    Udp(ALLOWED_UDP, "udp").start()
    Quic(QUIC_PORT).start()
    is_ready = threading.Event()
    threading.Thread(target=websocket, args=[is_ready], daemon=True).start()
    is_ready.wait()
    calls = grpc_server()
    print("ready", flush=True)
    calls.wait_for_termination()


main()
