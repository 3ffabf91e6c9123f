"""Attacks on rules without l7Protocols: datagrams and connections to ports that no rule allows."""

import struct

import raw
from raw import ACK, SYN

ALLOWED, DENIED, DENIED_TCP = 7000, 7005, 9015


def ip(family, proto, payload, **how):
    build = raw.ipv4 if family == 4 else raw.ipv6
    return build(raw.POD[family], raw.OUT[family], proto, payload, **how)


def datagram(family, sport, dport, payload=b"forbidden datagram 0123456789abcdef", **how):
    return raw.udp(family, raw.POD[family], raw.OUT[family], sport, dport, payload, **how)


def fragment(family, proto, data, offset, more, ident):
    if family == 4:
        return ip(4, proto, data, ident=ident, frag=(0x2000 if more else 0) | offset // 8)
    extension = struct.pack("!BBHI", proto, 0, offset | more, ident)
    return raw.ipv6(raw.POD[6], raw.OUT[6], proto, data, extension=extension, first=44)


def cut(family, whole, at, ident):
    return fragment(family, 17, whole[:at], 0, True, ident), fragment(family, 17, whole[at:], at, False, ident)


def two(family, sport):
    """A good and a bad datagram of the same length, each in two fragments with one number."""
    good = datagram(family, sport, ALLOWED, b"allowed datagram, 0123456789abcdef.")
    return cut(family, good, 16, sport), cut(family, datagram(family, sport, DENIED), 16, sport)


def udp_rows():
    return {
        "plain": lambda f, s: [ip(f, 17, datagram(f, s, DENIED))],
        "with a checksum of zero": lambda f, s: [ip(f, 17, datagram(f, s, DENIED, zero=True))],
        "with a short length": lambda f, s: [ip(f, 17, datagram(f, s, DENIED, length=12))],
        "with padding behind": lambda f, s: [ip(f, 17, datagram(f, s, DENIED)) + b"x" * 60],
        "without payload": lambda f, s: [ip(f, 17, datagram(f, s, DENIED, payload=b""))],
        "in fragments": lambda f, s: list(two(f, s)[1]),
        "in fragments, last first": lambda f, s: list(reversed(two(f, s)[1])),
        "in fragments of 8": lambda f, s: list(cut(f, datagram(f, s, DENIED), 8, s)),
        "in a fragment of its own": lambda f, s: [fragment(f, 17, datagram(f, s, DENIED), 0, False, s)],
        "behind an allowed first fragment": lambda f, s: [two(f, s)[0][0], *two(f, s)[1]],
        "tail of an allowed first fragment": lambda f, s: [two(f, s)[0][0], two(f, s)[1][1], two(f, s)[1][0]],
        "allowed first fragment last": lambda f, s: [two(f, s)[1][1], two(f, s)[1][0], two(f, s)[0][0]],
        "overlap of 8": lambda f, s: [
            fragment(f, 17, datagram(f, s, ALLOWED, b"allowed")[:8], 0, True, s),
            fragment(f, 17, datagram(f, s, DENIED)[:16], 0, True, s),
            two(f, s)[1][1],
        ],
        "other number in the tail": lambda f, s: [two(f, s)[0][0], cut(f, datagram(f, s, DENIED), 16, s + 1)[1]],
        "with IP options or an extension": lambda f, s: [
            ip(4, 17, datagram(4, s, DENIED), options=b"\1\1\1\1")
            if f == 4
            else raw.ipv6(raw.POD[6], raw.OUT[6], 17, datagram(6, s, DENIED), extension=bytes([17, 0, 1, 4, 0, 0, 0, 0]), first=60)
        ],
        "with a routing option or header": lambda f, s: [
            ip(4, 17, datagram(4, s, DENIED), options=b"\x83\7\4" + raw.OUT[4] + b"\0")
            if f == 4
            else raw.ipv6(raw.POD[6], raw.OUT[6], 17, datagram(6, s, DENIED), extension=bytes([17, 0, 0, 0, 0, 0, 0, 0]), first=43)
        ],
        "from the allowed port": lambda f, s: [ip(f, 17, datagram(f, s, ALLOWED, b"allowed")), ip(f, 17, datagram(f, s, DENIED))],
        "one way, 100 in a row": lambda f, s: [ip(f, 17, datagram(f, s, DENIED))] * 100,
        "behind 50 allowed ones": lambda f, s: [ip(f, 17, datagram(f, s, ALLOWED, b"allowed"))] * 50 + [ip(f, 17, datagram(f, s, DENIED))],
        "with a bad checksum first": lambda f, s: [ip(f, 17, datagram(f, s, ALLOWED, b"allowed", bad=True)), ip(f, 17, datagram(f, s, DENIED))],
    }


def tcp(family, sport, flags, **how):
    return raw.tcp(family, raw.POD[family], raw.OUT[family], sport, DENIED_TCP, 1000, 0, flags, **how)


def tcp_rows():
    return {
        "SYN": lambda f, s: [ip(f, 6, tcp(f, s, SYN))],
        "SYN and FIN": lambda f, s: [ip(f, 6, tcp(f, s, SYN | raw.FIN))],
        "SYN with all but ACK": lambda f, s: [ip(f, 6, tcp(f, s, 0xEA))],
        "SYN behind an ACK": lambda f, s: [ip(f, 6, tcp(f, s, ACK)), ip(f, 6, tcp(f, s, SYN))],
        "SYN behind an RST": lambda f, s: [ip(f, 6, tcp(f, s, raw.RST)), ip(f, 6, tcp(f, s, SYN))],
        "SYN behind a SYN-ACK": lambda f, s: [ip(f, 6, tcp(f, s, SYN | ACK)), ip(f, 6, tcp(f, s, SYN))],
        "SYN in fragments": lambda f, s: [
            fragment(f, 6, tcp(f, s, SYN)[:8], 0, True, s),
            fragment(f, 6, tcp(f, s, SYN)[8:], 8, False, s),
        ],
        "SYN with IP options or an extension": lambda f, s: [
            ip(4, 6, tcp(4, s, SYN), options=b"\x94\4\0\0")
            if f == 4
            else raw.ipv6(raw.POD[6], raw.OUT[6], 6, tcp(6, s, SYN), extension=bytes([6, 0, 1, 4, 0, 0, 0, 0]), first=60)
        ],
    }


def send(wire, build):
    def run(family, port):
        answered = raw.Connection(wire, family, port, DENIED_TCP)
        for packet in build(family, port):
            wire.send(family, packet)
        # A connection that is made is written down by the server once it is complete.
        if answered.wait(lambda: answered.rcv_next is not None or answered.reset, 0.3) and answered.rcv_next:
            answered.isn = 1000
            answered.packet(0, b"hello")
            answered.step()
        return "reset" if answered.reset else "sent"

    return run


def controls(table, wire, when):
    def whole(family, sport):
        return [ip(family, 17, datagram(family, sport, ALLOWED, b"allowed"))]

    def pieces(family, sport):
        return list(two(family, sport)[0])

    table.add("udp", f"control {when}", "udp", send(wire, whole), control=True)
    table.add("udp", f"control in fragments {when}", "udp", send(wire, pieces), control=True)


def add(table, wire):
    for name, build in udp_rows().items():
        table.add("udp", name, "denied-udp", send(wire, build))
    for name, build in tcp_rows().items():
        table.add("ports", name, "denied-tcp", send(wire, build))
