"""What clients of today send first, as the recordings of crates/l7/tests/hellos have it.

Over TCP the name can be swapped in the clear. QUIC's Initial packets are opened with the keys that
follow from their connection ID (RFC 9001, section 5.2), and sealed again with another name in the same
bytes' place."""

import os
import re
from functools import cache

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

DIR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../l7/tests/hellos")
SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
INITIAL_V1 = 0xC0
PADDING, PING, CRYPTO = 0, 1, 6
NAMES = re.compile(rb"(?:[a-zA-Z0-9_-]+\.)+(?:com|net|org)")


def load(quic):
    """Name of the recording, and its pieces."""
    found = {}
    for file in sorted(os.listdir(DIR)):
        name, suffix = os.path.splitext(file)
        if suffix == ".hex" and name.startswith("quic-") == quic:
            with open(os.path.join(DIR, file), encoding="ascii") as text:
                blocks = text.read().split("\n\n")[1:]
            found[name] = [bytes.fromhex(block) for block in blocks]
    assert found, "no recordings"
    return found


def tcp_hellos():
    return {name: parts[0] for name, parts in load(False).items()}


def expand(secret, label, length):
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(secret)


class Keys:
    """A client's keys for Initial packets."""

    def __init__(self, dcid):
        extract = HMAC(SALT, SHA256())
        extract.update(dcid)
        client = expand(extract.finalize(), b"client in", 32)
        self.aead = AESGCM(expand(client, b"quic key", 16))
        self.iv = expand(client, b"quic iv", 12)
        self.mask_key = expand(client, b"quic hp", 16)

    def nonce(self, number):
        return bytes(a ^ b for a, b in zip(self.iv, number.to_bytes(12, "big")))

    def mask(self, sample):
        return Cipher(algorithms.AES(self.mask_key), modes.ECB()).encryptor().update(sample)


@cache
def keys(dcid):
    return Keys(dcid)


def varint(data, at):
    size = 1 << (data[at] >> 6)
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size


class Initial:
    """The Initial packet at a datagram's start, opened; what is behind it stays as it is."""

    def __init__(self, datagram):
        assert datagram[0] & 0xF0 == INITIAL_V1 and datagram[1:5] == b"\0\0\0\1", "no Initial packet"
        at = 6 + datagram[5]
        self.dcid = datagram[6:at]
        at += 1 + datagram[at]
        token, at = varint(datagram, at)
        length, at = varint(datagram, at + token)
        end, own = at + length, keys(self.dcid)
        mask = own.mask(datagram[at + 4 : at + 20])
        first = datagram[0] ^ mask[0] & 0x0F
        size = (first & 3) + 1
        number = bytes(a ^ b for a, b in zip(datagram[at : at + size], mask[1:]))
        self.header = bytes([first]) + datagram[1:at] + number
        self.number, self.size = int.from_bytes(number, "big"), size
        self.payload = own.aead.decrypt(own.nonce(self.number), datagram[at + size : end], self.header)
        self.behind = datagram[end:]

    def frames(self):
        """Place in the payload, offset in the stream, and length of each CRYPTO frame."""
        at, found = 0, []
        while at < len(self.payload):
            kind, at = self.payload[at], at + 1
            if kind == CRYPTO:
                offset, at = varint(self.payload, at)
                length, at = varint(self.payload, at)
                found.append((at, offset, length))
                at += length
            else:
                assert kind in (PADDING, PING), f"a frame of type {kind}"
        return found

    def crypto(self):
        return [(offset, self.payload[at : at + length]) for at, offset, length in self.frames()]

    def write(self, stream):
        """Puts a stream's bytes into the CRYPTO frames."""
        payload = bytearray(self.payload)
        for at, offset, length in self.frames():
            payload[at : at + length] = stream[offset : offset + length]
        self.payload = bytes(payload)

    def seal(self):
        own = keys(self.dcid)
        body = own.aead.encrypt(own.nonce(self.number), self.payload, self.header)
        mask = own.mask(body[4 - self.size : 20 - self.size])
        number = bytes(a ^ b for a, b in zip(self.header[-self.size :], mask[1:]))
        return bytes([self.header[0] ^ mask[0] & 0x0F]) + self.header[1 : -self.size] + number + body + self.behind


def stream(pieces):
    """The hello's bytes from (offset, data); None as long as some are missing."""
    out, known = bytearray(1 << 14), bytearray(1 << 14)
    for offset, data in pieces:
        out[offset : offset + len(data)] = data
        known[offset : offset + len(data)] = b"\1" * len(data)
    size = 4 + int.from_bytes(out[1:4], "big")
    whole = all(known[:4]) and size <= len(out) and all(known[:size])
    return bytes(out[:size]) if whole else None


def renamed(datagrams, old, new):
    """The same first flight with another name of equal length."""
    packets = [Initial(datagram) for datagram in datagrams]
    hello = stream([piece for packet in packets for piece in packet.crypto()])
    assert hello.count(old) == 1 and len(old) == len(new)
    for packet in packets:
        packet.write(hello.replace(old, new))
    return [packet.seal() for packet in packets]
