"""A TCP client of its own on AF_PACKET: it sends any segment that its caller makes up.

It speaks from spare addresses of the pod's subnet that the pod's kernel does not own, so the
kernel answers nothing in its name. It acknowledges what the server sends, and nothing more.
"""

import random
import socket
import struct
import threading
import time

POD = {4: socket.inet_pton(socket.AF_INET, "10.10.0.66"), 6: socket.inet_pton(socket.AF_INET6, "fd10::66")}
OUT = {4: socket.inet_pton(socket.AF_INET, "192.0.2.10"), 6: socket.inet_pton(socket.AF_INET6, "2001:db8:2::10")}
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
TCP, UDP, ICMP = 6, 17, 1
# What a pause between two segments has to outlast: the way to the server, on a busy machine.
STEP = 0.06
# How long an attack waits for a sign of its end. A server answers within milliseconds.
PATIENCE = 0.8
MASK = 0xFFFFFFFF


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def l4_checksum(family, src, dst, proto, segment):
    if family == 4:
        pseudo = src + dst + struct.pack("!BBH", 0, proto, len(segment))
    else:
        pseudo = src + dst + struct.pack("!II", len(segment), proto)
    return checksum(pseudo + segment)


def ipv4(src, dst, proto, payload, ttl=64, ident=None, frag=0, options=b"", bad=False):
    ident = random.randrange(1, 65536) if ident is None else ident
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | words, 0, words * 4 + len(payload), ident, frag, ttl, proto, 0, src, dst)
    head += options
    value = checksum(head) ^ (0x5555 if bad else 0)
    return head[:10] + struct.pack("!H", value) + head[12:] + payload


def ipv6(src, dst, proto, payload, hops=64, extension=b"", first=None):
    nxt = proto if first is None else first
    head = struct.pack("!IHBB16s16s", 6 << 28, len(extension) + len(payload), nxt, hops, src, dst)
    return head + extension + payload


def tcp(family, src, dst, sport, dport, seq, ack, flags, payload=b"", window=64240, options=b"", urg=0, bad=False, words=None):
    words = (5 + len(options) // 4) if words is None else words
    head = struct.pack("!HHIIBBHHH", sport, dport, seq & MASK, ack & MASK, words << 4, flags, window, 0, urg)
    segment = head + options + payload
    value = l4_checksum(family, src, dst, TCP, segment) ^ (0x5555 if bad else 0)
    return segment[:16] + struct.pack("!H", value) + segment[18:]


def udp(family, src, dst, sport, dport, payload, length=None, bad=False, zero=False):
    length = 8 + len(payload) if length is None else length
    segment = struct.pack("!HHHH", sport, dport, length, 0) + payload
    value = 0 if zero else (l4_checksum(family, src, dst, UDP, segment) or 0xFFFF) ^ (0x5555 if bad else 0)
    return segment[:6] + struct.pack("!H", value) + segment[8:]


class Wire:
    """The pod's interface. One thread reads it and hands segments to connections."""

    def __init__(self, device, gateway):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        self.socket.bind((device, 0))
        self.mac, self.gateway = self.socket.getsockname()[4], gateway
        self.connections = {}
        threading.Thread(target=self.read, daemon=True).start()

    def send(self, family, packet):
        kind = b"\x08\0" if family == 4 else b"\x86\xdd"
        self.socket.send(self.gateway + self.mac + kind + packet)

    def read(self):
        while True:
            frame = self.socket.recv(1 << 17)
            kind, at = frame[12:14], 14
            if kind == b"\x08\0" and frame[at + 9] == TCP and frame[at + 16 : at + 20] == POD[4]:
                family, begin = 4, at + (frame[at] & 15) * 4
                end = at + int.from_bytes(frame[at + 2 : at + 4], "big")
            elif kind == b"\x86\xdd" and frame[at + 6] == TCP and frame[at + 24 : at + 40] == POD[6]:
                family, begin = 6, at + 40
                end = begin + int.from_bytes(frame[at + 4 : at + 6], "big")
            else:
                continue
            segment = frame[begin:end]
            connection = self.connections.get((family, int.from_bytes(segment[2:4], "big")))
            if connection:
                connection.arrived(segment)


class Connection:
    """One TCP connection. Offsets of data count from the first byte behind the SYN."""

    def __init__(self, wire, family, sport, dport, isn=None, timestamps=False):
        self.wire, self.family, self.sport, self.dport = wire, family, sport, dport
        self.isn = random.randrange(1 << 32) if isn is None else isn
        self.src, self.dst = POD[family], OUT[family]
        self.timestamps, self.ts_recent, self.ts = timestamps, 0, 1_000_000
        self.change = threading.Condition()
        self.forget()
        wire.connections[family, sport] = self

    def forget(self):
        self.rcv_next, self.acked, self.data = None, None, b""
        self.reset = self.finished = False

    def options(self, ts=None):
        if not self.timestamps:
            return b""
        return b"\1\1\x08\x0a" + struct.pack("!II", (self.ts if ts is None else ts) & MASK, self.ts_recent)

    def arrived(self, segment):
        seq, ack = struct.unpack("!II", segment[4:12])
        size, flags = (segment[12] >> 4) * 4, segment[13]
        payload, answer = segment[size:], False
        with self.change:
            if flags & RST:
                self.reset = True
            elif flags & SYN:
                self.rcv_next, self.acked = (seq + 1) & MASK, ack
            elif self.rcv_next is not None:
                if flags & ACK:
                    self.acked = ack
                if self.timestamps and segment[20:24] == b"\1\1\x08\x0a":
                    self.ts_recent = int.from_bytes(segment[24:28], "big")
                if seq == self.rcv_next and (payload or flags & FIN):
                    self.data += payload
                    self.finished |= bool(flags & FIN)
                    self.rcv_next = (seq + len(payload) + (flags & FIN)) & MASK
                answer = bool(payload or flags & FIN)
            self.change.notify_all()
        if answer:
            self.packet(self.at_end, b"", ACK)

    def wait(self, condition, limit=PATIENCE):
        with self.change:
            return self.change.wait_for(condition, limit)

    @property
    def at_end(self):
        """Offset of what the server has acknowledged."""
        return ((self.acked or self.isn + 1) - self.isn - 1) & MASK

    def segment(self, offset, payload, flags=ACK | PSH, ts=None, **how):
        options = how.pop("options", None)
        options = self.options(ts) if options is None else options
        seq = how.pop("seq", self.isn + 1 + offset)
        ack = how.pop("ack", self.rcv_next or 0)
        return tcp(self.family, self.src, self.dst, self.sport, self.dport, seq, ack, flags, payload, options=options, **how)

    def packet(self, offset, payload, flags=ACK | PSH, ttl=64, ip_options=b"", bad_ip=False, **how):
        segment = self.segment(offset, payload, flags, **how)
        if self.family == 4:
            packet = ipv4(self.src, self.dst, TCP, segment, ttl=ttl, options=ip_options, bad=bad_ip)
        else:
            packet = ipv6(self.src, self.dst, TCP, segment, hops=ttl)
        self.wire.send(self.family, packet)

    def syn(self, payload=b"", options=None, **how):
        own = b"\2\4\5\xb4" + (b"" if options is None else options)
        if self.timestamps:
            own += b"\1\1\x08\x0a" + struct.pack("!II", self.ts, 0)
        self.packet(-1, payload, SYN, options=own, ack=0, **how)

    def connect(self, payload=b"", options=None):
        for _ in range(3):
            self.syn(payload, options)
            if self.wait(lambda: self.rcv_next is not None or self.reset, 1.0):
                break
        assert self.rcv_next is not None, "no SYN-ACK"
        self.packet(0, b"", ACK)
        return self

    def flow(self, payload, offset=0, size=1400, **how):
        """Sends data in order in segments of a size."""
        for at in range(0, len(payload), size):
            self.packet(offset + at, payload[at : at + size], **how)

    def reach(self, offset, limit=PATIENCE):
        """Waits until the server has acknowledged so much."""
        return self.wait(lambda: self.at_end >= offset or self.reset, limit)

    def step(self):
        """Lets what was sent arrive; ends early when the connection does."""
        self.wait(lambda: self.reset, STEP)

    def end(self):
        """Waits for the connection's end or an answer, then aborts it."""
        self.wait(lambda: self.reset or self.finished or self.data)
        # A second answer would come at once.
        self.wait(lambda: self.reset or self.finished, STEP * 2)
        self.packet(self.at_end, b"", RST | ACK)
        if self.reset:
            return "reset"
        return "closed" if self.finished else "open"
