"""Listens on loopback for one client and writes down what it sends first.

Arguments: tcp or udp, the port, the file to write, a line about the client. A TCP client's hello is
written up to its end; of a UDP client, the datagrams that come at once are, without an answer.
The fingerprint in the file is worked out here, from the description of JA4, not by Tollgate."""

import hashlib
import socket
import sys
import time

# How long a client may take to come: browsers start slowly.
PATIENCE = 60
# Datagrams of the first flight follow each other within this; a repetition takes longer.
FLIGHT = 0.1
WIDTH = 32


def grease(number):
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


def hello_end(data):
    """Where the records that hold the hello end; None while some of it is missing."""
    at, message = 0, b""
    while at + 5 <= len(data):
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if at > len(data):
            return None
        if len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4], "big"):
            return at
    return None


def numbers(data):
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


def fields(body):
    """Cipher suites, and extensions by number in their order."""
    at = 35 + body[34]
    size = int.from_bytes(body[at : at + 2], "big")
    suites, at = numbers(body[at + 2 : at + 2 + size]), at + 2 + size
    at += 1 + body[at] + 2
    extensions = {}
    while at < len(body):
        kind, size = numbers(body[at : at + 4])
        extensions[kind] = body[at + 4 : at + 4 + size]
        at += 4 + size
    return suites, extensions


def short_hash(values):
    text = values if isinstance(values, str) else ",".join(f"{v:04x}" for v in values)
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12


def ja4(message):
    suites, extensions = fields(message[4:])
    suites = sorted(s for s in suites if not grease(s))
    kinds = [k for k in extensions if not grease(k)]
    versions = numbers(extensions[43][1:]) if 43 in extensions else numbers(message[4:6])
    version = {0x304: "13", 0x303: "12"}[max(v for v in versions if not grease(v))]
    alpn = extensions.get(16, b"\0\0\0")
    first = alpn[3 : 3 + alpn[2]].decode("latin-1") if alpn[2:] != b"\0" else ""
    ends = first[0] + first[-1] if first else "00"
    start = f"t{version}{'d' if 0 in extensions else 'i'}{min(len(suites), 99):02}{min(len(kinds), 99):02}{ends}"
    algorithms = [a for a in numbers(extensions.get(13, b"\0\0")[2:]) if not grease(a)]
    rest = ",".join(f"{k:04x}" for k in sorted(k for k in kinds if k not in (0, 16)))
    if algorithms:
        rest += "_" + ",".join(f"{a:04x}" for a in algorithms)
    return f"{start}_{short_hash(suites)}_{short_hash(rest)}"


def tcp(port):
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(PATIENCE)
        client, _ = server.accept()
        client.settimeout(PATIENCE)
        data = b""
        while not (end := hello_end(data)):
            piece = client.recv(1 << 16)
            if not piece:
                raise SystemExit(f"closed after {len(data)} bytes")
            data += piece
        client.close()
    return [data[:end]]


def udp(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", port))
        server.settimeout(PATIENCE)
        first, peer = server.recvfrom(1 << 16)
        found, end = [first], time.monotonic() + FLIGHT
        while (left := end - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                datagram, sender = server.recvfrom(1 << 16)
            except TimeoutError:
                break
            if sender == peer:
                found.append(datagram)
    return found


def main():
    kind, port, path, note = sys.argv[1:]
    parts = {"tcp": tcp, "udp": udp}[kind](int(port))
    lines = [f"# {note}"]
    if kind == "tcp":
        payload, at = b"", 0
        while at < len(parts[0]):
            size = int.from_bytes(parts[0][at + 3 : at + 5], "big")
            payload, at = payload + parts[0][at + 5 : at + 5 + size], at + 5 + size
        lines.append(f"# JA4 {ja4(payload)}")
    for part in parts:
        lines.append("")
        lines += [part[i : i + WIDTH].hex() for i in range(0, len(part), WIDTH)]
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    print(path, [len(part) for part in parts])


main()
