"""An engine without an opinion: what comes out of one port goes into the other, with its VLAN tag.

plain.py TAP0 TAP1 [IP=MAC ...]    the destination aa:bb:cc:dd:ee:ff is rewritten for those addresses
Prints a line for each frame: vlan, MACs, protocol, addresses, TTL, TCP flags, length.
"""
import ipaddress
import socket
import struct
import sys

SOL_PACKET = 263
PACKET_AUXDATA = 8
PACKET_VNET_HDR = 15
ETH_P_ALL = 3
TP_STATUS_VLAN_VALID = 1 << 4
VIRTUAL_MAC = bytes.fromhex("aabbccddeeff")
VNET_LEN = 10
TAG_LEN = 4


def port(name):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    s.bind((name, ETH_P_ALL))
    return s


def tag(ancillary):
    for level, kind, data in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, _ = struct.unpack("<IIIHHHH", data[:20])
            if status & TP_STATUS_VLAN_VALID:
                return tci
    return None


def mac(b):
    return b.hex(":")


def describe(tci, eth):
    if eth[12:14] == b"\x08\x00":
        ihl = (eth[14] & 15) * 4
        source, destination, ttl, proto = eth[26:30], eth[30:34], eth[22], eth[23]
        l4 = eth[14 + ihl:]
    elif eth[12:14] == b"\x86\xdd":
        source, destination, ttl, proto = eth[22:38], eth[38:54], eth[21], eth[20]
        l4 = eth[54:]
    else:
        return f"vlan={tci & 4095} {mac(eth[6:12])}>{mac(eth[:6])} type={eth[12:14].hex()}"
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    ports = struct.unpack("!HH", l4[:4]) if proto in (6, 17) else (0, 0)
    flags = f"{l4[13]:#04x}" if proto == 6 else "-"
    return (f"vlan={tci & 4095} {mac(eth[6:12])}>{mac(eth[:6])} proto={proto} "
            f"{a} {ports[0]} > {b} {ports[1]} ttl={ttl} flags={flags} len={len(eth)}")


def local_mac(eth, known):
    at, size = {b"\x08\x00": (30, 4), b"\x86\xdd": (38, 16)}.get(eth[12:14], (0, 0))
    return known.get(eth[at:at + size])


def main():
    out, back = port(sys.argv[1]), port(sys.argv[2])
    known = {}
    for pair in sys.argv[3:]:
        address, to = pair.split("=")
        known[ipaddress.ip_address(address).packed] = bytes.fromhex(to.replace(":", ""))
    print("ready", flush=True)
    while True:
        data, ancillary, _, source = out.recvmsg(1 << 17, 256)
        tci = tag(ancillary)
        if source[2] == socket.PACKET_OUTGOING or tci is None:
            continue
        flags, kind, hdr_len, gso, start, offset = struct.unpack("<BBHHHH", data[:VNET_LEN])
        eth = data[VNET_LEN:]
        print(describe(tci, eth), flush=True)
        if eth[:6] == VIRTUAL_MAC and (to := local_mac(eth, known)):
            eth = to + eth[6:]
        hdr_len += TAG_LEN if hdr_len else 0
        start += TAG_LEN if flags & 1 else 0
        vnet = struct.pack("<BBHHHH", flags, kind, hdr_len, gso, start, offset)
        back.send(vnet + eth[:12] + struct.pack("!HH", 0x8100, tci) + eth[12:])


main()
