"""Attacks on how TCP's segments become a stream. Each tries to make the server read other bytes
than those that were judged. The two heads have the same length, so that one can stand for the other."""

import struct

import raw
from raw import ACK, FIN, PSH, RST, STEP, SYN, URG
from table import HTTP, request

GOOD, EVIL = request("/v2/a"), request("/admin")
GOOD = GOOD.replace(b"/v2/a", b"/v2/ab")
assert len(GOOD) == len(EVIL)
N = len(EVIL)
LONG = 300_000
ROWS = {}
# The kernel reads TCP for all of them; they differ in what they make of an end of the stream.
SERVERS = ("nginx", "python", "lenient")


def row(name, **setup):
    def add(function):
        ROWS[name] = (function, setup)
        return function

    return add


def decoy(name, **how):
    """A segment that the server drops carries the good head; then the forbidden one comes in its place."""

    @row(f"decoy {name}, then forbidden", timestamps="ts" in how)
    def first(c):
        c.packet(0, GOOD, **{k: v(c) if callable(v) else v for k, v in how.items()})
        c.step()
        c.flow(EVIL)

    @row(f"decoy {name} in the middle", timestamps="ts" in how)
    def middle(c):
        c.packet(0, EVIL[:4])
        c.reach(4)
        c.packet(4, GOOD[4:20], **{k: v(c) if callable(v) else v for k, v in how.items()})
        c.step()
        c.packet(4, EVIL[4:20])
        c.packet(20, EVIL[20:])

    @row(f"forbidden {name}", timestamps="ts" in how)
    def itself(c):
        c.packet(0, EVIL, **{k: v(c) if callable(v) else v for k, v in how.items()})
        c.step()
        c.packet(0, GOOD)


decoy("with a bad checksum", bad=True)
decoy("that lives one hop", ttl=1)
decoy("without ACK", flags=PSH)
decoy("without any flag", flags=0)
decoy("with URG", flags=ACK | PSH | URG, urg=5)
decoy("with an old timestamp", ts=5)
decoy("with a far acknowledgement", ack=lambda c: (c.rcv_next + 0x20000000) & raw.MASK)
decoy("with SYN", flags=SYN | ACK)
decoy("with SYN, one hop", flags=SYN, ttl=1)
decoy("with RST", flags=RST | ACK, ttl=1)
decoy("with FIN, one hop", flags=FIN | ACK | PSH, ttl=1)
decoy("with all flags", flags=63, ttl=1)
decoy("with a data offset too small", words=4)
decoy("with a data offset too large", words=15)
decoy("with an unasked signature", options=b"\x13\x12" + b"x" * 16 + b"\0\0", ttl=1)
decoy("with broken options", options=b"\x08\x28\0\0", ttl=1)
decoy("with a bad IP checksum", bad_ip=True)


@row("data on SYN", connected=False)
def data_on_syn(c):
    c.connect(EVIL)


@row("data on SYN with Fast Open", connected=False)
def fast_open(c):
    c.connect(EVIL, options=b"\x22\x02\1\1")


@row("data on SYN with a cookie", connected=False)
def fast_open_cookie(c):
    c.connect(EVIL, options=b"\x22\x0a" + b"cookie!!" + b"\1\1")


@row("good data on SYN, forbidden behind it", connected=False)
def syn_then_more(c):
    c.connect(GOOD)
    c.flow(EVIL)
    c.step()
    c.flow(EVIL, offset=N)


@row("data before the handshake", connected=False)
def no_handshake(c):
    c.packet(-1, b"", SYN)
    c.packet(0, EVIL, ack=0)
    c.wait(lambda: c.rcv_next is not None)
    c.flow(EVIL)


@row("data without a connection", connected=False)
def no_connection(c):
    c.packet(0, EVIL, ack=1)
    c.step()


@row("another SYN first", connected=False)
def two_syns(c):
    c.packet(-1, b"", SYN, ttl=1, seq=c.isn - 50_000)
    c.connect()
    c.packet(0, GOOD, seq=c.isn - 50_000 + 1)
    c.flow(EVIL)


@row("another SYN in the middle")
def syn_in_the_middle(c):
    c.packet(0, EVIL[:5])
    c.reach(5)
    c.packet(-1, b"", SYN, ttl=1, seq=c.isn + 5)
    c.step()
    c.packet(5, EVIL[5:])


@row("another SYN behind a good request")
def syn_behind(c):
    c.flow(GOOD)
    c.reach(N)
    c.packet(-1, b"", SYN, ttl=1, seq=c.isn + 77)
    c.step()
    c.flow(EVIL, offset=N)


@row("SYN-ACK from the client")
def syn_ack(c):
    c.packet(-1, b"", SYN | ACK, ttl=1)
    c.step()
    c.flow(EVIL)


for place, seq in [("at 0", 0), ("far ahead", 1 << 24), ("far behind", -(1 << 24)), ("exact, one hop", None)]:

    @row(f"RST {place}, then forbidden")
    def rst(c, seq=seq):
        c.packet(0, GOOD)
        c.reach(N)
        at = N if seq is None else seq
        c.packet(at, b"", RST | ACK, ttl=1 if seq is None else 64, **({"seq": 0} if seq == 0 else {}))
        c.step()
        c.flow(EVIL, offset=N)

    @row(f"RST {place}, before any data")
    def rst_first(c, seq=seq):
        c.packet(0 if seq is None else seq, b"", RST, ttl=1)
        c.step()
        c.flow(EVIL)

    @row(f"FIN {place}, then forbidden")
    def fin(c, seq=seq):
        c.packet(N if seq is None else seq, b"", FIN | ACK, ttl=1)
        c.step()
        c.flow(EVIL)

    @row(f"FIN {place}, behind a good request")
    def fin_behind(c, seq=seq):
        c.flow(GOOD)
        c.reach(N)
        c.packet(N if seq is None else seq, b"", FIN | ACK, ttl=1)
        c.step()
        c.flow(EVIL, offset=N)


for cut in (2, 4, 30, N - 10, 3):

    @row(f"FIN on the last segment, {cut} bytes missing")
    def fin_on_data(c, cut=cut):
        c.packet(0, EVIL[:-cut], FIN | ACK | PSH)

    @row(f"FIN behind the last segment, {cut} bytes missing")
    def fin_behind_data(c, cut=cut):
        c.packet(0, EVIL[:-cut])
        c.packet(N - cut, b"", FIN | ACK)

    @row(f"FIN ahead of the data, {cut} bytes missing")
    def fin_ahead(c, cut=cut):
        c.packet(N - cut, b"", FIN | ACK)
        c.step()
        c.packet(0, EVIL[:-cut])

    @row(f"FIN on held data, {cut} bytes missing")
    def fin_held(c, cut=cut):
        c.packet(4, EVIL[4:-cut], FIN | ACK | PSH)
        c.step()
        c.packet(0, EVIL[:4])

    @row(f"FIN on a retransmission, {cut} bytes missing")
    def fin_again(c, cut=cut):
        c.packet(0, EVIL[:-cut])
        c.step()
        c.packet(0, EVIL[:-cut], FIN | ACK | PSH)

    @row(f"FIN on the second request, {cut} bytes missing")
    def fin_second(c, cut=cut):
        c.flow(GOOD)
        c.reach(N)
        c.packet(N, EVIL[:-cut], FIN | ACK | PSH)

    @row(f"FIN behind the second request, {cut} bytes missing")
    def fin_behind_second(c, cut=cut):
        c.flow(GOOD)
        c.reach(N)
        c.packet(N, EVIL[:-cut])
        c.packet(2 * N - cut, b"", FIN | ACK)


@row("retransmission with other bytes")
def other_bytes(c):
    c.packet(0, GOOD[:N - 2], ttl=1)
    c.step()
    c.packet(0, EVIL)


@row("retransmission with other bytes behind")
def other_bytes_longer(c):
    c.packet(0, GOOD, ttl=1)
    c.step()
    c.packet(0, EVIL + EVIL)
    c.packet(N, GOOD)


@row("retransmission in pieces")
def other_bytes_pieces(c):
    c.packet(0, GOOD, ttl=1)
    c.step()
    for at in range(0, N, 3):
        c.packet(at, EVIL[at : at + 3])


@row("overlap, the later one differs")
def overlap_later(c):
    c.packet(0, GOOD[:8])
    c.packet(4, EVIL[4:])


@row("overlap, the earlier one differs")
def overlap_earlier(c):
    c.packet(4, EVIL[4:])
    c.packet(0, GOOD[:8])


@row("overlap of held segments")
def overlap_held(c):
    c.packet(10, GOOD[10:])
    c.packet(4, EVIL[4:])
    c.step()
    c.packet(0, GOOD[:4])


@row("overlap of held segments, other order")
def overlap_held_other(c):
    c.packet(4, EVIL[4:])
    c.packet(4, GOOD[4:])
    c.step()
    c.packet(0, GOOD[:4])


@row("held twice, differing")
def held_twice(c):
    for _ in range(5):
        c.packet(4, GOOD[4:])
        c.packet(4, EVIL[4:])
    c.step()
    c.packet(0, EVIL[:4])


@row("one byte ahead of what was judged")
def one_ahead(c):
    c.packet(0, GOOD[:-1])
    c.reach(N - 1)
    c.packet(N, EVIL)
    c.packet(N - 1, b"\n")


@row("segment that begins before the stream")
def before_start(c):
    c.packet(-10, b"x" * 10 + EVIL)


@row("segment that begins one before the stream")
def one_before(c):
    c.packet(-1, b"x" + EVIL)


@row("backwards, byte by byte")
def backwards(c):
    for at in reversed(range(N)):
        c.packet(at, EVIL[at : at + 1])


@row("every other byte first")
def every_other(c):
    for at in [*range(1, N, 2), *range(0, N, 2)]:
        c.packet(at, EVIL[at : at + 1])


@row("sequence numbers wrap", isn=raw.MASK - 12)
def wrap(c):
    c.packet(0, EVIL[:12])
    c.packet(12, EVIL[12:])


@row("sequence numbers wrap, decoy", isn=raw.MASK - 12)
def wrap_decoy(c):
    c.packet(0, GOOD, ttl=1)
    c.step()
    c.packet(0, EVIL[:12])
    c.packet(12, EVIL[12:])


@row("half of 2^32 away")
def half(c):
    c.packet(1 << 31, GOOD)
    c.packet((1 << 31) - 1, GOOD)
    c.step()
    c.flow(EVIL)


# The byte that the urgent pointer points behind is taken out of the stream by the server.
for at in (GOOD.index(b"2"), GOOD.index(b"v"), GOOD.index(b"pi.ex"), 0):

    @row(f"urgent byte at {at}")
    def urgent(c, at=at):
        c.packet(0, GOOD, ACK | PSH | URG, urg=at + 1)

    @row(f"urgent byte at {at}, told ahead")
    def urgent_ahead(c, at=at):
        c.packet(0, b"", ACK | URG, urg=at + 1)
        c.packet(0, GOOD)

    @row(f"urgent byte at {at}, in pieces")
    def urgent_pieces(c, at=at):
        c.packet(0, GOOD[:at], ACK | PSH | URG, urg=at + 1)
        c.packet(at, GOOD[at : at + 1], ACK | PSH | URG, urg=1)
        c.packet(at + 1, GOOD[at + 1 :])


def forged(c, seq, ack, flags, payload=b""):
    """A segment as from the server, sent by the client."""
    segment = raw.tcp(c.family, c.dst, c.src, c.dport, c.sport, seq, ack, flags, payload)
    build = raw.ipv4 if c.family == 4 else raw.ipv6
    c.wire.send(c.family, build(c.dst, c.src, raw.TCP, segment))


@row("forged acknowledgement")
def forged_ack(c):
    c.packet(0, GOOD, ttl=1)
    c.step()
    forged(c, c.rcv_next, c.isn + 1 + N, ACK)
    c.step()
    c.flow(EVIL)


@row("forged SYN-ACK", connected=False)
def forged_syn_ack(c):
    c.packet(-1, b"", SYN, ttl=1)
    forged(c, 1000, c.isn + 1, SYN | ACK)
    c.step()
    c.packet(0, GOOD, ack=1001, ttl=1)
    c.step()
    c.forget()
    c.syn()
    c.wait(lambda: c.rcv_next is not None)
    c.flow(EVIL)


@row("forged switch of protocols")
def forged_switch(c):
    head = request("/v2/a", fields=["Connection: Upgrade", "Upgrade: websocket"])
    c.flow(head)
    at = c.rcv_next
    forged(c, at, c.isn + 1 + len(head), ACK | PSH, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    c.step()
    c.flow(EVIL, offset=len(head))
    c.reach(len(head))
    c.flow(EVIL, offset=len(head))


@row("port used again", connected=False)
def again(c):
    c.connect()
    c.flow(GOOD)
    c.reach(N)
    c.packet(N, b"", RST | ACK)
    c.step()
    c.isn = (c.isn + 5_000_000) & raw.MASK
    c.forget()
    c.connect()
    c.flow(EVIL)


@row("port used again, old numbers", connected=False)
def again_old(c):
    c.connect()
    c.flow(GOOD)
    c.reach(N)
    c.packet(N, b"", RST | ACK)
    c.step()
    c.forget()
    c.connect()
    c.flow(EVIL)


def upload(length=LONG):
    return request("/v2/a", fields=[f"Content-Length: {length}"])


@row("behind a long body")
def behind_body(c):
    head = upload()
    c.flow(head)
    c.reach(len(head))
    for at in range(0, LONG, 14000):
        c.flow(b"b" * min(14000, LONG - at), offset=len(head) + at)
        c.reach(len(head) + at + 1)
    c.flow(EVIL, offset=len(head) + LONG)


@row("across the end of a long body")
def across_body(c):
    head = upload()
    c.flow(head)
    c.reach(len(head))
    body = b"b" * LONG + EVIL
    for at in range(0, len(body), 14000):
        c.flow(body[at : at + 14000], offset=len(head) + at)
        c.reach(len(head) + at + 1)


@row("ahead of a long body's end")
def ahead_of_body(c):
    head = upload()
    c.flow(head)
    c.reach(len(head))
    at = 30_000
    c.flow(b"b" * at, offset=len(head))
    c.packet(len(head) + LONG, EVIL)
    c.packet(len(head) + LONG - 4, b"bbbb" + EVIL)
    c.step()
    for at in range(at, LONG, 14000):
        c.flow(b"b" * min(14000, LONG - at), offset=len(head) + at)
        c.reach(len(head) + at + 1)


@row("a body promised by a decoy")
def promised(c):
    head = upload()
    c.packet(0, head, ttl=1)
    c.step()
    c.packet(len(head), EVIL)
    c.packet(0, (GOOD + EVIL + EVIL)[: len(head)])


@row("a body with a decoy's length")
def other_length(c):
    long, short = upload(100_000), upload("000000").replace(b"GET /v2/a", b"GET /v2/a")
    c.packet(0, long, ttl=1)
    c.step()
    c.packet(0, short)
    c.packet(len(long), EVIL)


def sized_body(c):
    c.packet(0, upload(20))


@row("RST inside a body, then forbidden")
def rst_in_body(c):
    head = upload()
    c.flow(head)
    c.reach(len(head))
    c.packet(len(head), b"", RST, ttl=1)
    c.step()
    c.flow(b"b" * 1000, offset=len(head))


def fragments(c, segment, cuts, order=None, overlap=None, ident=7777):
    """One TCP segment in IP fragments cut at multiples of 8."""
    bounds = list(zip([0, *cuts], [*cuts, len(segment)]))
    found = []
    for begin, end in bounds:
        more = end < len(segment)
        found.append(fragment(c, segment[begin:end], begin, more, ident))
    for packet in (overlap or []) + [found[i] for i in (order or range(len(found)))]:
        c.wire.send(c.family, packet)


def fragment(c, data, offset, more, ident=7777):
    if c.family == 4:
        return raw.ipv4(c.src, c.dst, raw.TCP, data, ident=ident, frag=(0x2000 if more else 0) | offset // 8)
    extension = struct.pack("!BBHI", raw.TCP, 0, offset | more, ident)
    return raw.ipv6(c.src, c.dst, raw.TCP, data, extension=extension, first=44)


for name, cuts, order in [
    ("in the payload", [40], None),
    ("in the header", [8], None),
    ("behind the header", [24], None),
    ("in many", [8, 16, 24, 32, 40, 48], None),
    ("in the payload, last first", [40], [1, 0]),
    ("in many, reversed", [8, 16, 24, 32, 40], [5, 4, 3, 2, 1, 0]),
]:

    @row(f"fragments {name}")
    def fragmented(c, cuts=cuts, order=order):
        fragments(c, c.segment(0, EVIL), cuts, order)


@row("fragments that overlap, good first")
def overlapping_good(c):
    good, evil = c.segment(0, GOOD), c.segment(0, EVIL)
    fragments(c, evil, [24], overlap=[fragment(c, good[:48], 0, True)])


@row("fragments that overlap, good last")
def overlapping_last(c):
    good, evil = c.segment(0, GOOD), c.segment(0, EVIL)
    fragments(c, evil, [24])
    c.wire.send(c.family, fragment(c, good[24:], 24, False))


@row("fragment of a whole segment")
def atomic(c):
    c.wire.send(c.family, fragment(c, c.segment(0, EVIL), 0, False))


@row("tail of a fragment alone")
def tail(c):
    segment = c.segment(0, EVIL)
    c.wire.send(c.family, fragment(c, segment[24:], 24, False))
    c.wire.send(c.family, fragment(c, segment[:24], 0, True))


@row("good fragment, then a whole one with its number")
def shared_number(c):
    c.wire.send(c.family, fragment(c, c.segment(0, GOOD)[:32], 0, True))
    segment = c.segment(0, EVIL)
    c.wire.send(c.family, fragment(c, segment[:24], 0, True))
    c.wire.send(c.family, fragment(c, segment[24:], 24, False))


EXTENSIONS = {
    "hop-by-hop": (0, bytes([6, 0, 1, 4, 0, 0, 0, 0])),
    "destination": (60, bytes([6, 0, 1, 4, 0, 0, 0, 0])),
    "routing": (43, bytes([6, 0, 0, 0, 0, 0, 0, 0])),
    "two destination": (60, bytes([60, 0, 1, 4, 0, 0, 0, 0]) + bytes([6, 0, 1, 4, 0, 0, 0, 0])),
    "ten destination": (60, bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 9 + bytes([6, 0, 1, 4, 0, 0, 0, 0])),
    "hop-by-hop and fragment": (0, bytes([44, 0, 1, 4, 0, 0, 0, 0]) + bytes([6, 0, 0, 0, 0, 0, 0, 9])),
}
OPTIONS = {
    "no operation": b"\1\1\1\1",
    "router alert": b"\x94\4\0\0",
    "loose source route": b"\x83\7\4" + raw.OUT[4] + b"\0",
    "record route": b"\7\7\4\0\0\0\0\0",
    "forty bytes": b"\1" * 40,
}


def extended(name, number):
    @row(f"IP extension {number + 1}: {name[0]}, {name[1]}")
    def run(c):
        segment = c.segment(0, EVIL)
        if c.family == 4:
            packet = raw.ipv4(c.src, c.dst, raw.TCP, segment, options=OPTIONS[name[1]])
        else:
            first, extension = EXTENSIONS[name[0]]
            packet = raw.ipv6(c.src, c.dst, raw.TCP, segment, extension=extension, first=first)
        c.wire.send(c.family, packet)


for number, pair in enumerate(zip(EXTENSIONS, [*OPTIONS, "no operation"])):
    extended(pair, number)


@row("Ethernet padding that looks like data")
def padding(c):
    segment = c.segment(0, GOOD[:4])
    build = raw.ipv4 if c.family == 4 else raw.ipv6
    c.wire.send(c.family, build(c.src, c.dst, raw.TCP, segment) + EVIL[4:])
    c.reach(4)
    c.packet(4, EVIL[4:])


@row("IP length shorter than the frame")
def short_length(c):
    build = raw.ipv4 if c.family == 4 else raw.ipv6
    c.wire.send(c.family, build(c.src, c.dst, raw.TCP, c.segment(0, GOOD)) + b"\0" * 600)
    c.reach(N)
    c.flow(EVIL, offset=N)


for at in range(1, N):

    @row(f"split at {at}")
    def split(c, at=at):
        c.packet(0, EVIL[:at])
        c.packet(at, EVIL[at:])

    if at % 3 == 0:

        @row(f"split at {at}, second part first")
        def swapped(c, at=at):
            c.packet(at, EVIL[at:])
            c.packet(0, EVIL[:at])

        @row(f"split at {at}, a good tail that dies on its way")
        def good_tail(c, at=at):
            c.packet(0, EVIL[:at])
            c.packet(at, GOOD[at:], ttl=1)
            c.step()
            c.packet(at, EVIL[at:])


def run(wire, function, setup, dport):
    def attack(ip, port):
        c = raw.Connection(wire, ip, port, dport, setup.get("isn"), setup.get("timestamps", False))
        if setup.get("connected", True):
            c.connect()
        function(c)
        return c.end()

    return attack


def controls(table, wire, when):
    for server in SERVERS:
        port = HTTP[server]
        for name, setup in [("control", {}), ("control with timestamps", {"timestamps": True})]:
            attack = run(wire, lambda c: c.flow(GOOD), setup, port)
            table.add("tcp", f"{name} {when}", server, attack, control=True)


def add(table, wire):
    for server in SERVERS:
        for name, (function, setup) in ROWS.items():
            if server != "lenient" and name.startswith("split"):
                continue
            table.add("tcp", name, server, run(wire, function, setup, HTTP[server]))
