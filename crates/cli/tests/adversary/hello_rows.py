"""Hellos of today's clients, recorded, in all the pieces that a network makes of them.

With the allowed name OpenSSL must answer each with a ServerHello; with another name of the same length
in its place no server may see one."""

import os
import socket
import time

import recorded
from table import API, OUTSIDE, TLS, Await, dial, pieces
from tls_rows import OTHER, cut_records

OPENSSL, QUIC = TLS["openssl"], 7443
# Longer than any answer takes.
SOON = 8.0
SERVER_HELLO = 2
# What an upload over a full-sized segment, a small path and a tiny one puts into each.
SIZES = {"of a full MSS": 1448, "of 536": 536, "of 88": 88, "of 7": 7, "of one byte": 1}


def shapes(hello):
    """Shapes by name: the parts as they are sent, and the MSS if it is not the path's."""
    found = {"whole": ([hello], None), "whole, MSS of 88": ([hello], 88), "whole, MSS of 536": ([hello], 536)}
    for name, size in SIZES.items():
        found[f"in segments {name}"] = ([hello[i : i + size] for i in range(0, len(hello), size)], None)
    name_at = hello.index(b".example.")
    for at in (1, 5, 6, 9, 43, name_at, len(hello) // 2, 1400, len(hello) - 1):
        found[f"cut at {at}"] = ([hello[:at], hello[at:]], None)
    payload = len(hello) - 5
    found["in records of 100"] = ([cut_records(hello, *range(100, payload, 100))], None)
    found["in records of one byte"] = ([cut_records(hello, *range(1, payload))], None)
    for name, at in [("in the name", name_at - 5), ("at 1", 1), ("at the end", payload - 1)]:
        whole = cut_records(hello, at)
        found[f"records cut {name}"] = ([whole], None)
        found[f"records cut {name}, in separate segments"] = ([whole[: 5 + at], whole[5 + at :]], None)
    return found


def answered(parts, mss, pause=0.0):
    """OpenSSL's ServerHello; an alert would be the engine's, as OpenSSL takes all of these."""

    def run(ip, port):
        client = dial(ip, port, OPENSSL, mss)
        for part in parts:
            client.sendall(part)
            time.sleep(pause)
        client.settimeout(SOON)
        answer = b""
        while len(answer) < 6:
            piece = client.recv(6 - len(answer))
            if not piece:
                break
            answer += piece
        client.close()
        return "ok" if answer[:1] == b"\x16" and answer[5:] == bytes([SERVER_HELLO]) else f"answer {answer!r}"

    return run


def honest(table):
    for client, hello in recorded.tcp_hellos().items():
        for shape, (parts, mss) in shapes(hello).items():
            table.add("hellos", f"{client}, {shape}", "openssl", answered(parts, mss))
        half = [hello[:700], hello[700:-1], hello[-1:]]
        table.add("hellos", f"{client}, slowly", "openssl", answered(half, None, pause=0.4))
    for client, datagrams in recorded.load(True).items():
        for shape, order in flights(datagrams).items():
            table.add("hellos", f"{client}, {shape}", "quic", echoed(order))


def attacks(table):
    for client, hello in recorded.tcp_hellos().items():
        assert hello.count(API.encode()) == 1
        denied = hello.replace(API.encode(), OTHER.encode())
        for shape, (parts, mss) in shapes(denied).items():
            table.add("hellos", f"{client}, {shape}", "openssl", pieces(OPENSSL, *parts, mss=mss))
            table.add("hellos", f"{client}, {shape}", "lenient-tls", pieces(TLS["lenient-tls"], *parts, mss=mss))
        slowly = [denied[:700], Await(0.3), denied[700:-1], Await(0.3), denied[-1:]]
        table.add("hellos", f"{client}, slowly", "openssl", pieces(OPENSSL, *slowly))
    for client, datagrams in recorded.load(True).items():
        for name, order in quic_attacks(datagrams).items():
            table.add("quic", f"{client}, {name}", "quic", sent(order))
    for name, datagram in NOT_QUIC.items():
        table.add("quic", name, "quic", sent([datagram]))
        table.add("quic", f"one way, 100 of {name}", "quic", sent([datagram] * 100))


def controls(table, when):
    for client, datagrams in recorded.load(True).items():
        table.add("quic", f"control {client} {when}", "quic", echoed(datagrams), control=True)


def flights(datagrams):
    found = {"in order": datagrams, "each twice": [d for d in datagrams for _ in (0, 1)], "repeated later": [*datagrams, None, *datagrams]}
    if len(datagrams) > 1:
        found["last first"] = datagrams[::-1]
        found["slowly"] = [datagrams[0], None, *datagrams[1:]]
        found["the first lost once"] = [*datagrams[1:], None, *datagrams]
    return found


def quic_attacks(datagrams):
    """First flights with a forbidden name, and mixtures with the allowed one."""
    denied = recorded.renamed(datagrams, API.encode(), OTHER.encode())
    found = {f"forbidden, {shape}": order for shape, order in flights(denied).items()}
    found |= {
        "forbidden behind allowed": datagrams + denied,
        "forbidden before allowed": denied + datagrams,
        "forbidden behind allowed, later": [*datagrams, None, *denied],
        "forbidden in upper case": recorded.renamed(datagrams, API.encode(), OTHER.upper().encode()),
    }
    if len(datagrams) > 1:
        # Both have the same numbers and keys: either may fill the other's gaps.
        found["first allowed, last forbidden"] = [datagrams[0], *denied[1:], datagrams[1], denied[0]]
        found["first forbidden, last allowed"] = [denied[0], *datagrams[1:], datagrams[0], denied[1]]
    return found


# To a port where only QUIC may go.
NOT_QUIC = {
    "text": b"forbidden datagram",
    "a short header": b"\x41" + os.urandom(60),
    "an Initial packet that nobody opens": b"\xc0\0\0\0\1\x08" + os.urandom(8) + b"\0\0\x44\x9e" + os.urandom(1182),
    "a Handshake packet": b"\xe0\0\0\0\1\x08" + os.urandom(8) + b"\0\x44\x9e" + os.urandom(1182),
    "0-RTT alone": b"\xd0\0\0\0\1\x08" + os.urandom(8) + b"\0\x44\x9e" + os.urandom(1182),
    "another version": b"\xc0\xfa\xfa\xfa\xfa\x08" + os.urandom(8) + b"\0\0\x44\x9e" + os.urandom(1182),
    "nothing": b"",
}


def connect(ip, port):
    client = socket.socket(socket.AF_INET if ip == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    client.bind(("", port))
    client.connect((OUTSIDE[ip], QUIC))
    return client


# Between two parts of a flight.
PAUSE = 0.2


def send_all(client, order, send=socket.socket.send):
    """Sends datagrams in an order; None is a pause."""
    for datagram in order:
        if datagram is None:
            time.sleep(PAUSE)
        else:
            send(client, datagram)


def insist(client, datagram):
    """Sends a datagram although earlier ones were refused: the kernel tells of that instead of sending."""
    for _ in range(10):
        try:
            return client.send(datagram)
        except OSError as error:
            last = error
    raise last


def echoed(order):
    """Every datagram comes back: the server has seen it as it was sent."""

    def run(ip, port):
        client = connect(ip, port)
        send_all(client, order)
        expected = [datagram for datagram in order if datagram is not None]
        client.settimeout(SOON)
        back = [client.recv(1 << 16) for _ in expected]
        client.close()
        return "ok" if sorted(back) == sorted(expected) else "other datagrams came back"

    return run


def sent(order):
    """Sends whatever the answers are, and tells of them."""

    def run(ip, port):
        client = connect(ip, port)
        outcome = "sent"
        send_all(client, order, insist)
        client.settimeout(0.3)
        try:
            client.recv(1)
            outcome = "answered"
        except TimeoutError:
            pass
        except OSError as error:
            outcome = f"refused: {error.strerror}"
        client.close()
        return outcome

    return run
