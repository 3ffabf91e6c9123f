"""Attacks on how a ClientHello is read. OpenSSL makes the hello; the rows take it apart.

The allowed and the forbidden name have the same length: one can stand in the other's place."""

import ssl

from table import API, AWAIT, EVIL, HTTP, TLS, Await, dial, listen, pieces, request

OTHER = "ext.example.org"
assert len(OTHER) == len(API)


def client(name, groups=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(inward, outward, server_hostname=name)
    return session, inward, outward


def hello(name=OTHER):
    """A hello as one record."""
    session, _, outward = client(name)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outward.read()


def record(payload, kind=22, version=0x0301):
    return bytes([kind]) + version.to_bytes(2, "big") + len(payload).to_bytes(2, "big") + payload


def message(body, kind=1):
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def extension(kind, body):
    return kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def name_list(*names, kind=0):
    entries = b"".join(bytes([kind]) + len(n).to_bytes(2, "big") + n for n in names)
    return len(entries).to_bytes(2, "big") + entries


def sni(*names, kind=0):
    return extension(0, name_list(*(n if isinstance(n, bytes) else n.encode() for n in names), kind=kind))


def split(data):
    """A hello's handshake body: what precedes the extensions, and the extensions without a name."""
    body = data[9:]
    at = 34 + 1 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    end, rest = at + 2 + int.from_bytes(body[at : at + 2], "big"), b""
    start, at = body[:at], at + 2
    while at < end:
        size = 4 + int.from_bytes(body[at + 2 : at + 4], "big")
        if body[at : at + 2] != b"\0\0":
            rest += body[at : at + size]
        at += size
    return start, rest


def with_names(*extensions, last=b""):
    """A hello with name extensions of its own, before the others or behind them."""
    start, rest = split(hello())
    extra = b"".join(extensions) + rest + last
    return start + len(extra).to_bytes(2, "big") + extra


def one(*extensions, last=b""):
    return record(message(with_names(*extensions, last=last)))


def cut_records(data, *cuts):
    payload = data[5:]
    bounds = zip([0, *cuts], [*cuts, len(payload)])
    return b"".join(record(payload[a:b]) for a, b in bounds)


def ssl2(name):
    """A hello in SSLv2's form (RFC 5246, appendix E.2), which has no place for a name."""
    body = b"\1\3\3" + b"\0\3\0\0\0\x20" + b"\0\0\x2f" + b"r" * 32
    return (0x8000 | len(body)).to_bytes(2, "big") + body + name.encode()


def rows():
    bad, good = hello(OTHER), hello(API)
    payload = bad[5:]
    api, other, evil = API.encode(), OTHER.encode(), EVIL.encode()
    middle = payload.index(other) + 5
    found = {
        "name forbidden": [bad],
        "name of another domain": [hello(EVIL)],
        "name in upper case": [bad.replace(other, other.upper())],
        "name with trailing dot": [one(sni(OTHER + "."))],
        "name that begins as allowed": [one(sni(f"{API}.{EVIL}"))],
        "name that ends as allowed": [one(sni(f"evil{API}"))],
        "name with NUL": [one(sni(api + b"\0.example.org"))],
        "name with NUL before": [one(sni(b"\0" + other))],
        "name with space": [one(sni(b" " + other))],
        "name with two dots": [one(sni(OTHER + ".."))],
        "name of high bytes": [one(sni(b"\xe4" + other))],
        "name with port": [one(sni(OTHER + ":443"))],
        "name empty": [one(sni(""), sni(OTHER))],
        "name of 300 bytes": [one(sni("a." * 150 + OTHER))],
        "address for a name": [one(sni("192.0.2.10"))],
        "IPv6 address for a name": [one(sni("2001:db8:2::10"))],
        "no name": [one()],
        "no extensions": [record(message(split(bad)[0]))],
        "two names": [one(sni(API, OTHER))],
        "two names, forbidden first": [one(sni(OTHER, API))],
        "two extensions": [one(sni(API), sni(OTHER))],
        "two extensions, forbidden first": [one(sni(OTHER), sni(API))],
        "two extensions, one last": [one(sni(API), last=sni(OTHER))],
        "name of another type": [one(sni(OTHER, kind=1))],
        "names of two types": [one(extension(0, (2 * 18).to_bytes(2, "big") + b"\1\0\x0f" + api + b"\0\0\x0f" + other))],
        "name list with a rest": [one(extension(0, name_list(api) + name_list(other)))],
        "name list too long": [one(extension(0, b"\0\xff" + name_list(api)[2:]), sni(OTHER))],
        "name list too short": [one(extension(0, b"\0\3" + name_list(api)[2:]), sni(OTHER))],
        "rest behind the extensions": [record(message(with_names(sni(API)) + sni(OTHER)))],
        "rest behind the message": [record(message(with_names(sni(API))) + message(with_names(sni(OTHER))))],
        "two hellos in two records": [good + bad],
        "two hellos, one later": [good, AWAIT, bad],
        "forbidden hello, allowed one behind": [bad + good],
        "SSLv2 hello": [ssl2(OTHER)],
        "SSLv2 hello, then this": [ssl2("") + bad],
        "garbage before": [b"\0" * 16 + bad],
        "one byte before": [b"\x16" + bad],
        "empty line before": [b"\r\n" + bad],
        "a request before": [request("/v2/a"), AWAIT, bad],
        "PROXY line before": [b"PROXY TCP4 10.10.0.2 192.0.2.10 1 443\r\n" + bad],
        "alert before": [record(b"\1\0", kind=21) + bad],
        "warning, then hello": [record(b"\1\x5a", kind=21), AWAIT, bad],
        "change cipher spec before": [record(b"\1", kind=20) + bad],
        "change cipher spec inside": [record(payload[:middle]) + record(b"\1", kind=20) + record(payload[middle:])],
        "application data before": [record(b"x" * 10, kind=23) + bad],
        "application data for handshake": [record(payload, kind=23)],
        "second record of another type": [record(payload[:middle]) + record(payload[middle:], kind=23)],
        "heartbeat before": [record(b"\1\0\0", kind=24) + bad],
        "empty record before": [record(b"") + bad],
        "empty record inside": [record(payload[:middle]) + record(b"") + record(payload[middle:])],
        "hello request before": [record(message(b"", kind=0) + payload)],
        "hello request in a record before": [record(message(b"", kind=0)) + bad],
        "version SSL 3.0": [record(payload, version=0x0300)],
        "version SSL 2.0": [record(payload, version=0x0200)],
        "version TLS 1.5": [record(payload, version=0x0305)],
        "version that changes": [record(payload[:middle]) + record(payload[middle:], version=0x0303)],
        "legacy version SSL 3.0": [record(payload[:4] + b"\3\0" + payload[6:])],
        "record above 2^14": [record(message(with_names(sni(OTHER), last=extension(60000, b"\0" * 17000))))],
        "filler of 15 KiB": [one(sni(OTHER), last=extension(60000, b"\0" * 15000))],
        "filler of 15 KiB, name last": [one(extension(60000, b"\0" * 15000), last=sni(OTHER))],
        "message of 64 KiB": [
            cut_records(b"\0" * 5 + message(with_names(sni(OTHER), *[extension(60000 + i, b"\0" * 16200) for i in range(4)])), 16000, 32000, 48000, 64000)
        ],
        "200 extensions": [one(*[extension(50000 + i, b"") for i in range(200)], sni(OTHER))],
        "record length too long": [bad[:3] + (len(payload) + 50).to_bytes(2, "big") + payload, AWAIT, b"\0" * 50],
        "message length too short": [record(bytes([1]) + (len(payload) - 40).to_bytes(3, "big") + payload[4:])],
        "message length too long": [record(bytes([1]) + (len(payload) + 40).to_bytes(3, "big") + payload[4:])],
        "session identifier of 33": [record(message(payload[4:38] + b"\x21" + b"s" * 33 + payload[39 + payload[38] :]))],
        "every byte a segment": [bytes([b]) for b in bad],
        "every byte a record": [cut_records(bad, *range(1, len(payload)))],
        "every 100 bytes a record, late end": [cut_records(bad, *range(100, len(payload), 100))[:-1], Await(0.2), bad[-1:]],
    }
    for at in range(0, len(payload), 20):
        found[f"records cut at {at + 1}"] = [cut_records(bad, at + 1)]
    begin = payload.index(other)
    for at in range(begin - 5, begin + len(other) + 1):
        found[f"records cut in the name at {at - begin}"] = [cut_records(bad, at)]
    for at in range(1, len(bad), 16):
        found[f"segments cut at {at}"] = [bad[:at], bad[at:]]
    return found


def second_hello(dport):
    """The server asks for another key share; the second hello names another server."""

    def run(ip, port):
        session, inward, outward = client(API)
        connection = dial(ip, port, dport)
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        connection.sendall(outward.read())
        answer, end = listen(connection, 0.4, 1)
        inward.write(answer)
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        again = outward.read()
        if API.encode() not in again:
            return f"no second hello: {end}"
        connection.sendall(again.replace(API.encode(), OTHER.encode()))
        _, end = listen(connection, 0.8)
        connection.close()
        return end

    return run


def controls(table, when):
    for server, port in TLS.items():
        table.add("tls", f"control {when}", server, pieces(port, hello(API)), control=True)
        parts = cut_records(hello(API), 20, 90)
        table.add("tls", f"control in records {when}", server, pieces(port, parts), control=True)


def add(table):
    found = rows()
    for server, port in TLS.items():
        for name, parts in found.items():
            table.add("tls", name, server, pieces(port, *parts))
        table.add("tls", "closed before the end", server, pieces(port, hello()[:-1], half_close=True))
    table.add("tls", "another name after HelloRetryRequest", "openssl-retry", second_hello(8448))
    table.add("tls", "hello to HTTP", "lenient", pieces(HTTP["lenient"], hello()))
    table.add("tls", "request to TLS", "lenient-tls", pieces(TLS["lenient-tls"], request("/v2/a") + hello()))
