"""What all tables share: rows, requests, and a pool that runs rows side by side.

A row is run against servers, each time from a source port of its own. The servers write down the
port, so that each request that one acts on belongs to one row. What a row reports about itself is
for people; whether an attack passed is decided from the servers' records.
"""

import itertools
import json
import socket
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

API, EVIL = "api.example.com", "evil.example.net"
OUTSIDE = {4: "192.0.2.10", 6: "2001:db8:2::10"}
HTTP = {"nginx": 8081, "node": 8082, "python": 8083, "lenient": 8084}
TLS = {"openssl": 8445, "lenient-tls": 8447}
# Rows at a time. Most of a row's time is spent waiting for an answer that does not come.
WORKERS = 32
# How long a client waits for a sign of the connection's end.
PATIENCE = 0.8
# How long it waits for an answer before it goes on.
ANSWER = 0.4


def request(path="/admin", host=API, method="GET", fields=(), body=b"", version="HTTP/1.1"):
    lines = [f"{method} {path} {version}"] + ([f"Host: {host}"] if host is not None else []) + list(fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Await:
    """A pause in a row: until the server says something, or for a while."""

    def __init__(self, seconds=ANSWER):
        self.seconds = seconds



AWAIT = Await()


class Table:
    def __init__(self, out, first_port=2000):
        self.out, self.lock = open(out, "w", buffering=1), threading.Lock()
        self.ports = itertools.count(first_port)
        self.pool = ThreadPoolExecutor(WORKERS)
        self.jobs = []

    def add(self, family, name, server, run, control=False):
        """One run of a row; `run` gets the address family and the source port."""
        for ip in (4, 6):
            port = next(self.ports)
            self.jobs.append(self.pool.submit(self.run, family, name, server, ip, port, run, control))

    def run(self, family, name, server, ip, port, run, control):
        try:
            outcome = run(ip, port)
        except Exception as error:
            outcome = f"not run: {type(error).__name__}: {error}"
        line = {
            "family": family,
            "name": name,
            "server": server,
            "ip": ip,
            "port": port,
            "control": control,
            "outcome": outcome,
        }
        with self.lock:
            self.out.write(json.dumps(line) + "\n")

    def wait(self):
        """Until everything that was added has ended."""
        for job in self.jobs:
            job.result()
        self.jobs.clear()


def dial(ip, port, dport, mss=None):
    kind = socket.AF_INET if ip == 4 else socket.AF_INET6
    client = socket.socket(kind, socket.SOCK_STREAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if mss:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
    client.bind(("", port))
    client.settimeout(5)
    client.connect((OUTSIDE[ip], dport))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def listen(client, seconds, enough=1 << 30):
    """What comes until the end, a silence, or enough of it; and how it ended."""
    client.settimeout(seconds)
    data = b""
    while len(data) < enough:
        try:
            piece = client.recv(1 << 16)
        except socket.timeout:
            return data, "open"
        except OSError:
            return data, "reset"
        if not piece:
            return data, "closed"
        data += piece
    return data, "open"


def pieces(dport, *parts, half_close=False, mss=None):
    """A run that sends bytes, pauses where the row has a pause, and waits for the end."""

    def run(ip, port):
        client = dial(ip, port, dport, mss)
        heard = b""
        try:
            for part in parts:
                if isinstance(part, Await):
                    heard += listen(client, part.seconds, 1)[0]
                else:
                    client.sendall(part)
            if half_close:
                client.shutdown(socket.SHUT_WR)
        except OSError:
            # A denial may come before everything is sent.
            pass
        rest, end = listen(client, PATIENCE)
        heard += rest
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        first = heard[:12].decode("latin-1") if heard.startswith(b"HTTP/") else ""
        return f"{end} {first}".strip()

    return run


def arguments():
    return sys.argv[1:]
