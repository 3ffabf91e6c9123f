"""Honest clients with the libraries that applications use: WebSocket (websockets), gRPC (grpcio),
http.client, and HTTP/2 with prior knowledge frame by frame."""

import asyncio
import http.client
import os
import time

import grpc
import websockets

import http_rows
from table import API, HTTP, OUTSIDE, dial

WEBSOCKET, GRPC, NGINX_H2 = 8086, 8087, 8085
# Longer than any answer takes.
SOON = 8.0
# Longer than what a server or a network does to a connection at once; keep-alive probes come meanwhile.
IDLE = 2.5
LARGE = 3_000_000
SERVICE = "/shop.Orders/"


async def texts(ws):
    for word in ("a", "ä" * 300, "b" * 70_000):
        await ws.send(word)
        assert await ws.recv() == word, "another text came back"


async def large(ws):
    data = os.urandom(LARGE)
    await ws.send(data)
    assert await ws.recv() == data, "another message came back"


async def in_fragments(ws):
    parts = [os.urandom(size) for size in (1, 125, 126, 65_535, 65_536)]
    await ws.send(parts)
    assert await ws.recv() == b"".join(parts), "another message came back"


async def both_ways(ws):
    """Sends without waiting for what comes."""
    sent = [f"{i}" * (i % 50 + 1) for i in range(500)]
    sending = asyncio.ensure_future(asyncio.gather(*(ws.send(word) for word in sent)))
    assert [await ws.recv() for _ in sent] == sent, "another order"
    await sending


async def pings(ws):
    for size in (0, 4, 125):
        await asyncio.wait_for(await ws.ping(b"p" * size), SOON)
    await texts(ws)


async def idle(ws):
    """The server's pings go on meanwhile; one that is not answered ends the connection."""
    await asyncio.sleep(IDLE)
    await texts(ws)


def websocket(work, **options):
    async def talk(sock):
        uri = f"ws://{API}:{WEBSOCKET}/v2/chat?room=1"
        async with websockets.connect(uri, sock=sock, max_size=None, **options) as ws:
            await work(ws)
        assert ws.close_code == 1000, f"closed with {ws.close_code}"

    def run(ip, port):
        sock = dial(ip, port, WEBSOCKET)
        sock.setblocking(False)
        asyncio.run(asyncio.wait_for(talk(sock), SOON))
        return "ok"

    return run


def calls(channel, method="Get"):
    """A method in its four kinds, with bytes for messages."""
    kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    return {kind: getattr(channel, kind)(f"{SERVICE}{method}{kind}") for kind in kinds}


def unary(channel):
    for size in (0, 100, 100_000):
        data = os.urandom(size)
        answer, call = calls(channel)["unary_unary"].with_call(data, timeout=SOON)
        assert answer == data, "another message came back"
        assert ("sum", str(size)) in call.trailing_metadata(), f"trailers {call.trailing_metadata()}"


def streams(channel):
    found = calls(channel)
    data = [bytes([i]) * (i * 500) for i in range(100)]
    assert list(found["unary_stream"](b"z", timeout=SOON)) == [b"z"] * 100, "a stream of answers"
    assert found["stream_unary"](iter(data), timeout=SOON) == b"".join(data), "a stream of questions"
    assert list(found["stream_stream"](iter(data), timeout=SOON)) == data, "both ways"


def at_once(channel):
    """Many streams of one connection."""
    call = calls(channel)["unary_unary"]
    pending = [call.future(b"%d" % i, timeout=SOON) for i in range(200)]
    assert [p.result() for p in pending] == [b"%d" % i for i in range(200)], "another order"


def after_a_pause(channel):
    unary(channel)
    time.sleep(IDLE)
    unary(channel)


def with_metadata(channel):
    fields = [("authorization", "Bearer " + "t" * 6000), ("trace-bin", os.urandom(200))]
    call = calls(channel)["unary_unary"]
    for _ in range(3):
        assert call(b"a", metadata=fields, timeout=SOON) == b"a"


def an_error_of_the_server(channel):
    """Comes without a body: its head is its trailer."""
    code = status(channel, "/shop.Orders/Getfailing")
    assert code == grpc.StatusCode.NOT_FOUND, code


def a_denied_method(channel):
    code = status(channel, "/shop.Admin/Drop")
    assert code == grpc.StatusCode.PERMISSION_DENIED, code


def a_denied_method_behind_others(channel):
    """It ends the connection: streams of one connection cannot be told apart for the server. The next
    call comes over another one."""
    unary(channel)
    code = status(channel, "/shop.Admin/Drop")
    assert code != grpc.StatusCode.OK, code
    answer = calls(channel)["unary_unary"](b"x", timeout=SOON, wait_for_ready=True)
    assert answer == b"x"


def status(channel, method):
    try:
        channel.unary_unary(method)(b"x", timeout=SOON)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def grpc_client(work):
    def run(ip, _port):
        target = f"ipv4:{OUTSIDE[4]}:{GRPC}" if ip == 4 else f"ipv6:[{OUTSIDE[6]}]:{GRPC}"
        options = [("grpc.default_authority", API), ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(target, options) as channel:
            work(channel)
        return "ok"

    return run


def keep_alive(dport, pause=0.0):
    """http.client, many requests over one connection."""

    def run(ip, port):
        client = http.client.HTTPConnection(API, dport, timeout=SOON)
        client.sock = own = dial(ip, port, dport)
        for number in range(3 if pause else 20):
            client.request("GET", f"/v2/{number}", headers={"Cookie": "c=" + "d" * 900})
            answer = client.getresponse()
            answer.read()
            if answer.status != 200:
                return f"request {number}: {answer.status}"
            if client.sock is not own:
                return f"request {number} came over a connection of its own"
            time.sleep(pause)
        client.close()
        return "ok"

    return run


def prior_knowledge(*cuts):
    """HTTP/2 from its preface on, in parts with pauses between them: the first part alone, then more."""

    def run(ip, port):
        client = dial(ip, port, NGINX_H2)
        begin, _ = http_rows.preface()
        data = begin + http_rows.headers(1, "/v2/a", API) + http_rows.headers(3, "/v2/b", API)
        for begin, end in zip((0, *cuts), (*cuts, len(data))):
            client.sendall(data[begin:end])
            time.sleep(0.1)
        client.settimeout(SOON)
        heard = b""
        # HEADERS that begin with `:status: 200` from the static table (RFC 7541, appendix A).
        while heard.count(b"\x88") < 2:
            heard += client.recv(1 << 16) or b"\x88\x88 closed"
        client.close()
        return "ok" if not heard.endswith(b"closed") else f"closed after {heard[:60]!r}"

    return run


def add(table):
    for work in (texts, large, in_fragments, both_ways, pings, idle):
        table.add("honest", f"WebSocket {work.__name__}", "websockets", websocket(work))
    table.add("honest", "WebSocket large, not compressed", "websockets", websocket(large, compression=None))
    grpc_rows = (unary, streams, at_once, after_a_pause, with_metadata, an_error_of_the_server)
    for work in (*grpc_rows, a_denied_method, a_denied_method_behind_others):
        table.add("honest", f"gRPC {work.__name__}", "grpc", grpc_client(work))
    for name, port in HTTP.items():
        if name != "lenient":
            table.add("honest", "http.client keep-alive", name, keep_alive(port))
    table.add("honest", "http.client keep-alive, idle between requests", "node", keep_alive(HTTP["node"], 1.5))
    # The preface has 24 bytes, with SETTINGS it has 33; a request of ours begins behind that.
    for name, cuts in {
        "all at once": (),
        "preface alone first": (24,),
        "preface and SETTINGS first": (33,),
        "preface in pieces": (3, 16, 24),
        "a request in pieces": (33, 40, 60),
    }.items():
        table.add("honest", f"h2c with prior knowledge, {name}", "nginx-h2", prior_knowledge(*cuts))
