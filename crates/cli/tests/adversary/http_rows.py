"""Attacks on how HTTP/1 is read: framing, hosts, paths, versions, pipelines."""

from table import API, AWAIT, EVIL, HTTP, pieces, request

OK, BAD = request("/v2/a"), request("/admin")
LAST = b"0\r\n\r\n"
HTTP2, WEBSOCKET = 8085, 8086


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


# Fields that some reader takes for `Transfer-Encoding: chunked`, and some does not.
CODINGS = {
    "plain": "Transfer-Encoding: chunked",
    "upper case": "Transfer-Encoding: CHUNKED",
    "xchunked": "Transfer-Encoding: xchunked",
    "chunked, identity": "Transfer-Encoding: chunked, identity",
    "identity, chunked": "Transfer-Encoding: identity, chunked",
    "gzip, chunked": "Transfer-Encoding: gzip, chunked",
    "chunked, chunked": "Transfer-Encoding: chunked, chunked",
    "tab before": "Transfer-Encoding:\tchunked",
    "tab after": "Transfer-Encoding: chunked\t",
    "vertical tab": "Transfer-Encoding: \x0bchunked",
    "form feed after": "Transfer-Encoding: chunked\x0c",
    "NUL after": "Transfer-Encoding: chunked\0",
    "NUL in name": "Transfer-Enco\0ding: chunked",
    "comma after": "Transfer-Encoding: chunked,",
    "comma before": "Transfer-Encoding: ,chunked",
    "parameter": "Transfer-Encoding: chunked;q=1",
    "quoted": 'Transfer-Encoding: "chunked"',
    "apostrophes": "Transfer-Encoding: 'chunked'",
    "no space": "Transfer-Encoding:chunked",
    "space before colon": "Transfer-Encoding : chunked",
    "tab before colon": "Transfer-Encoding\t: chunked",
    "underscore": "Transfer_Encoding: chunked",
    "space before name": " Transfer-Encoding: chunked",
    "no-break space": "Transfer-Encoding:\xa0chunked",
    "high byte in name": "Transfer-Encoding\xa0: chunked",
    "folded": "Transfer-Encoding:\r\n chunked",
    "folded with tab": "Transfer-Encoding:\r\n\tchunked",
    "in a folded line": "X: y\r\n Transfer-Encoding: chunked",
    "behind a bare LF": "X: y\nTransfer-Encoding: chunked",
    "behind a bare CR": "X: y\rTransfer-Encoding: chunked",
    "behind CR CR LF": "X: y\r\r\nTransfer-Encoding: chunked",
    "twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "identity, then chunked": "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "chunked, then identity": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "chunked, then junk": "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
}


def smuggling(rows):
    hidden = LAST + BAD
    carried = chunk(BAD)
    size_line = carried.index(b"\n") + 1
    for name, field in CODINGS.items():
        # Who counts sees one body; who reads chunks sees a request behind an empty one.
        rows[f"TE {name}, length over all"] = [request("/v2/a", fields=[f"Content-Length: {len(hidden)}", field], body=hidden)]
        # Who reads chunks sees one body; who counts sees a request behind a short one.
        rows[f"TE {name}, length short"] = [
            request("/v2/a", fields=[field, f"Content-Length: {size_line}"], body=carried + LAST)
        ]
    for name, field in [("", "Transfer-Encoding: chunked"), (" xchunked", "Transfer-Encoding: xchunked")]:
        rows[f"TE{name} in HTTP/1.0"] = [
            request("/v2/a", version="HTTP/1.0", fields=["Connection: keep-alive", field], body=LAST + BAD)
        ]


def lengths(rows):
    n = len(BAD)
    fields = {
        "twice the same": [n, n],
        "long, then 0": [n, 0],
        "0, then long": [0, n],
        "list": [f"{n}, {n}"],
        "list that differs": [f"{n}, 0"],
        "list that differs, 0 first": [f"0, {n}"],
        "plus": [f"+{n}"],
        "minus": [f"-{n}"],
        "minus zero": ["-0"],
        "hexadecimal": [f"0x{n:x}"],
        "octal": [f"0o{n:o}"],
        "inner space": [f"{n} 0"],
        "leading tab": [f"\t{n}"],
        "vertical tab": [f"\x0b{n}"],
        "NUL": [f"{n}\0"],
        "underscore": [f"{n}_0"],
        "fraction": [f"{n}.0"],
        "exponent": ["1e2"],
        "letters": [f"{n}abc"],
        "quoted": [f'"{n}"'],
        "empty": [""],
        "above 64 bits": [(1 << 64) + n],
        "above 32 bits": [(1 << 32) + n],
        "above 63 bits": [(1 << 63) + n],
        "other digits": ["\xb2\xb3"],
    }
    for name, values in fields.items():
        rows[f"CL {name}"] = [request("/v2/a", fields=[f"Content-Length: {v}" for v in values], body=BAD)]
    for name, field in {
        "space before colon": f"Content-Length : {n}",
        "underscore in name": f"Content_Length: {n}",
        "folded": f"Content-Length:\r\n {n}",
        "in a folded line": f"X: y\r\n Content-Length: {n}",
        "behind a bare LF": f"X: y\nContent-Length: {n}",
        "behind a bare CR": f"X: y\rContent-Length: {n}",
        "named by Connection": f"Connection: Content-Length\r\nContent-Length: {n}",
    }.items():
        rows[f"CL {name}"] = [request("/v2/a", fields=[field], body=BAD)]
    # Some servers do not read the body of a GET.
    rows["CL.0"] = [request("/v2/a", fields=[f"Content-Length: {n}"], body=BAD)]
    rows["CL.0, body later"] = [request("/v2/a", fields=[f"Content-Length: {n}"]), AWAIT, BAD]
    rows["CL.0, HEAD"] = [request("/v2/a", method="HEAD", fields=[f"Content-Length: {n}"], body=BAD)]
    # Such a body passes if nothing in it can be taken for a request.
    for name, body in {
        "one line": b'{"a":1} ',
        "a target in it": b"{ /admin HTTP/1.1",
        "a target behind several blanks": b"{   /admin ",
        "a target behind another blank": b"{\xa0/admin\xa0HTTP/1.1",
        "an absolute target": b"{ http://api.example.com/admin HTTP/1.1",
        "a line end": b"{\n" + BAD,
        "line ends": b'{"a":1}\r\n' + BAD,
        "a bare CR": b"{\r" + BAD,
        "a method first": b"GET /admin HTTP/1.1 {",
        "a simple request": b"{ /admin\r\n",
        "a long line": b"{" + b"a" * 8100 + BAD,
        "nothing in it": b'{"query":{"match":{"title":"two words"}}}',
    }.items():
        start = request("/v2/a", fields=[f"Content-Length: {len(body)}"])
        rows[f"CL.0, {name}"] = [start + body + request("/v2/b")]
        rows[f"CL.0, {name}, later"] = [start, AWAIT, body, AWAIT, b"\r\n" + request("/v2/b")]
        rows[f"CL.0, {name}, then POST"] = [start + body + request("/v2/b", method="POST", fields=[f"Content-Length: {n}"], body=BAD)]
    rows["CL.0, Expect"] = [request("/v2/a", fields=["Expect: 100-continue", f"Content-Length: {n}"]), AWAIT, BAD]
    rows["CL.0, junk Expect"] = [request("/v2/a", fields=["Expect: x 100-continue", f"Content-Length: {n}"]), AWAIT, BAD]


def chunks(rows):
    start = request("/v2/a", fields=["Transfer-Encoding: chunked"])
    n = len(BAD)
    for name, body in {
        "extension": b"5;a=b\r\nhello\r\n" + LAST + BAD,
        "extension with bare LF": b"5;a=\nhello\r\n" + LAST + BAD,
        "extension that hides a request": b"2;\nxx\r\n%x\r\n0\r\n\r\n" % (n + 5) + BAD + b"\r\n" + LAST,
        "extension with quotes": b'0;a="\r\n\r\n' + BAD + b'"\r\n\r\n',
        "extension of 20 KiB": b"0;" + b"a" * 20000 + b"\r\n\r\n" + BAD,
        "size above 32 bits": b"100000000\r\n\r\n" + BAD,
        "size above 32 bits, wraps to 0": b"100000000\r\n" + BAD,
        "size above 64 bits": b"10000000000000000\r\n\r\n" + BAD,
        "size all ones": b"ffffffffffffffff\r\n" + BAD,
        "size minus": b"-1\r\n" + BAD,
        "size plus": b"+0\r\n\r\n" + BAD,
        "size 0x": b"0x%x\r\n" % n + BAD + b"\r\n" + LAST,
        "size empty": b"\r\n\r\n" + BAD,
        "size with space": b"0 \r\n\r\n" + BAD,
        "size with leading space": b" 0\r\n\r\n" + BAD,
        "size with 40 zeros": b"0" * 40 + b"\r\n\r\n" + BAD,
        "size line with bare LF": b"0\n\n" + BAD,
        "size line with bare CR": b"0\r\r" + BAD,
        "size with NUL": b"0\0\r\n\r\n" + BAD,
        "data longer than size": b"3\r\nabcdef\r\n" + LAST + BAD,
        "data without CRLF": b"3\r\nabc0\r\n\r\n" + BAD,
        "data with bare LF behind": b"3\r\nabc\n0\r\n\r\n" + BAD,
        "trailer Host": b"0\r\nHost: evil.example.net\r\n\r\n",
        "trailer Content-Length": b"0\r\nContent-Length: %d\r\n\r\n" % n + BAD,
        "trailer Transfer-Encoding": b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + BAD,
        "trailer with bare LF": b"0\r\nA: b\n\r\n" + BAD,
        "trailer that is a request": b"0\r\n" + BAD,
        "trailer folded": b"0\r\nA: b\r\n c\r\n\r\n" + BAD,
        "request behind the last": LAST + BAD,
        "request behind the last, later": LAST,
    }.items():
        rows[f"chunk {name}"] = [start + body] if not name.endswith("later") else [start + body, AWAIT, BAD]


def hosts(rows):
    def head(*fields, target="/v2/a", version="HTTP/1.1"):
        return [request(target, host=None, fields=fields, version=version)]

    good, evil = f"Host: {API}", f"Host: {EVIL}"
    rows.update(
        {
            "Host forbidden": head(evil),
            "Host twice": head(good, evil),
            "Host twice, forbidden first": head(evil, good),
            "Host in upper case second": head(good, f"HOST: {EVIL}"),
            "Host with space before colon": head(f"Host : {EVIL}", good),
            "Host with tab before colon, second": head(good, f"Host\t: {EVIL}"),
            "Host behind a space": head(good, f" {evil}"),
            "Host first line folded": head(f" {evil}", good),
            "Host folded": head(f"Host:\r\n {EVIL}"),
            "Host folded, continued": head(f"{good}\r\n .{EVIL}"),
            "Host list": head(f"{good}, {EVIL}"),
            "Host with space": head(f"{good} {EVIL}"),
            "Host with userinfo": head(f"{good}@{EVIL}"),
            "Host with userinfo and port": head(f"{good}:80@{EVIL}"),
            "Host with port and more": head(f"{good}:80.{EVIL}"),
            "Host with port name": head(f"{good}:{EVIL}"),
            "Host with empty port": head(f"{evil}:"),
            "Host with NUL": head(f"{good}\0.{EVIL}"),
            "Host with fragment": head(f"{good}#@{EVIL}"),
            "Host with slash": head(f"{good}/.{EVIL}"),
            "Host with backslash": head(f"{good}\\.{EVIL}"),
            "Host with percent": head(f"Host: api%2eexample.com.{EVIL}"),
            "Host with query": head(f"{good}?.{EVIL}"),
            "Host forbidden with trailing dot": head(f"{evil}."),
            "Host forbidden in upper case": head(evil.upper()),
            "Host that begins as allowed": head(f"{good}.{EVIL}"),
            "Host that ends as allowed": head(f"Host: evil{API}"),
            "Host behind a bare LF": head(f"{good}\n{evil}"),
            "Host behind a bare CR": head(f"{good}\r{evil}"),
            "Host behind a NUL": head(f"{good}\0\r\n{evil}"),
            "Host empty": head("Host:", evil),
            "Host missing": head("X: y"),
            "Host missing in HTTP/1.0": head("X: y", version="HTTP/1.0"),
            "Host of high bytes": head(f"Host: \xe4{API}"),
            "Host with two dots": head(f"{good}.."),
            "absolute form forbidden": head(good, target=f"http://{EVIL}/v2/a"),
            "absolute form against Host": head(evil, target=f"http://{API}/v2/a"),
            "absolute form without Host": head("X: y", target=f"http://{EVIL}/v2/a", version="HTTP/1.0"),
            "absolute form with userinfo": head(good, target=f"http://{API}@{EVIL}/v2/a"),
            "absolute form with backslash": head(good, target=f"http://{API}\\@{EVIL}/v2/a"),
            "absolute form in upper case": head(good, target=f"HTTP://{EVIL}/v2/a"),
            "absolute form, other scheme": head(good, target=f"ftp://{EVIL}/v2/a"),
            "absolute form, other path": head(good, target=f"http://{API}/admin"),
            "absolute form, query only": head(good, target=f"http://{API}?/v2/a"),
            "absolute form, three slashes": head(good, target=f"http:///{EVIL}/v2/a"),
            "absolute form, one slash": head(good, target=f"http:/{EVIL}/v2/a"),
            "two slashes and a host": head(good, target=f"//{EVIL}/v2/a"),
            "authority form": head(good, target=f"{API}:80"),
            "target without slash": head(good, target="v2/a"),
            "asterisk": head(good, target="*"),
        }
    )
    for method in ("CONNECT", "get", "POST", "DELETE", "OPTIONS", "TRACE", "GETX", "PUT"):
        target = f"{API}:80" if method == "CONNECT" else "/v2/a"
        rows[f"method {method}"] = [request(target, method=method, body=b"")]


PATHS = (
    "/admin /v2/../admin /v2/%2e%2e/admin /v2/.%2e/admin /v2/%2E./admin /v2/%252e%252e/admin /v2/..%2fadmin "
    "/v2/..%5cadmin /v2/..\\admin /v2\\..\\admin /v2/..;/admin /v2/..;x=y/admin /v2;/../admin /v2/a/../../admin "
    "/v2/./../admin /v2/.//../admin //admin //v2/../admin /v2//../admin /v2/%00/../../admin /v2/a%00/../../admin "
    "/v2/../admin%3f /v2/..%00/admin /v2/#/../../admin /v2/%23/../../admin /admin#/v2/ /admin?/v2/ /admin%3f/v2/ "
    "/admin;/v2/ /admin%00/v2/ /admin%2f..%2fv2/ /./admin /%61dmin /v2/..%c0%afadmin /v2/%c0%ae%c0%ae/admin "
    "/v2/..%u2215admin /v2/%uff0e%uff0e/admin /v2/..%25%32%66admin /v2/%%32%65%%32%65/admin /v2/%2e%2e%2fadmin "
    "/v2/..%0d/admin /v2/..%09/admin /V2/a /v2 /%76%32/../admin /v2/..?/admin /v2/a/..%2f..%2fadmin "
    "/v2/%5c../admin /v2/..%2f /v2/.. /v2/%2e%2e /v2/. ./v2/a ?/v2/a"
).split()


def paths(rows):
    for path in PATHS:
        # Behind an allowed prefix without a way out they stay where they are allowed.
        rows[f"path {path}"] = [request(path)]
    for name, path in {
        "NUL": "/admin\0/v2/",
        "tab": "/admin\t/v2/",
        "vertical tab": "/admin\x0b/v2/",
        "carriage return": "/admin\r/v2/",
        "high bytes": "/v2/..\xc0\xafadmin",
        "of 33 KiB": "/v2/" + "a/../" * 6700 + "../admin",
        "of 9 KiB": "/v2/" + "a/../" * 1800 + "../admin",
    }.items():
        rows[f"path with {name}"] = [request(path)]


def lines(rows):
    host = f"Host: {API}\r\n\r\n".encode()
    for name, data in {
        "HTTP/0.9": b"GET /admin\r\n",
        "HTTP/0.9 behind a request": OK + b"GET /admin\r\n\r\n",
        "HTTP/0.9 with LF": b"GET /admin\n",
        "bare LF everywhere": BAD.replace(b"\r\n", b"\n"),
        "bare CR everywhere": BAD.replace(b"\r\n", b"\r") + b"x",
        "bare LF at the head's end": OK[:-4] + b"\n\n" + BAD,
        "LF CR LF at the head's end": OK[:-4] + b"\n\r\n" + BAD,
        "CR CR at the head's end": OK[:-4] + b"\r\r" + BAD,
        "CR LF LF at the head's end": OK[:-4] + b"\r\n\n" + BAD,
        "NUL at the head's end": OK[:-2] + b"\0\r\n" + BAD,
        "version 1.2": BAD.replace(b"/1.1", b"/1.2"),
        "version 2.0": BAD.replace(b"/1.1", b"/2.0"),
        "version 1.10": BAD.replace(b"/1.1", b"/1.10"),
        "version 01.1": BAD.replace(b"/1.1", b"/01.1"),
        "version in lower case": BAD.replace(b"HTTP/", b"http/"),
        "two versions": b"GET /v2/a HTTP/1.1 /admin HTTP/1.1\r\n" + host,
        "two targets": b"GET /admin /v2/a HTTP/1.1\r\n" + host,
        "space behind the version": b"GET /admin HTTP/1.1 \r\n" + host,
        "tabs for spaces": b"GET\t/admin\tHTTP/1.1\r\n" + host,
        "two spaces": b"GET  /admin  HTTP/1.1\r\n" + host,
        "form feed for a space": b"GET\x0c/admin HTTP/1.1\r\n" + host,
        "leading spaces": b"  GET /admin HTTP/1.1\r\n" + host,
        "leading empty lines": b"\r\n\r\n\r\n" + BAD,
        "leading LF": b"\n" + BAD,
        "leading NUL": b"\0" + BAD,
        "leading byte order mark": b"\xef\xbb\xbf" + BAD,
        "empty lines between": OK + b"\r\n\r\n\r\n" + BAD,
        "NULs between": OK + b"\0\0" + BAD,
        "field without colon": b"GET /v2/a HTTP/1.1\r\nGET /admin HTTP/1.1\r\n" + host,
        "field without name": b"GET /v2/a HTTP/1.1\r\n: x\r\n" + host,
        "field folded into a request": b"GET /v2/a HTTP/1.1\r\nX: y\r\n \r\nGET /admin HTTP/1.1\r\n" + host,
        "field of 70 KiB": b"GET /v2/a HTTP/1.1\r\nX: " + b"a" * 70000 + b"\r\nHost: evil.example.net\r\n" + host,
        "300 fields": b"GET /v2/a HTTP/1.1\r\n" + b"X: y\r\n" * 300 + b"Host: evil.example.net\r\n" + host,
        "60 KiB, then two hosts": b"GET /v2/a HTTP/1.1\r\n" + b"X: %s\r\n" % (b"y" * 990) * 60 + b"Host: evil.example.net\r\n" + host,
        "method override": b"GET /admin HTTP/1.1\r\nX-HTTP-Method-Override: GET\r\n" + host,
    }.items():
        rows[f"line {name}"] = [data]


def headers(stream, path, host):
    """A request of HTTP/2 in literal fields, as a frame that ends its stream."""

    def literal(name, value):
        return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value

    block = literal(b":method", b"GET") + literal(b":scheme", b"http")
    block += literal(b":path", path.encode()) + literal(b":authority", host.encode())
    return len(block).to_bytes(3, "big") + b"\1\5" + stream.to_bytes(4, "big") + block


def preface():
    """HTTP/2 with prior knowledge: preface with SETTINGS, and a forbidden request."""
    settings = b"\0\0\0\4\0\0\0\0\0"
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings, headers(1, "/admin", EVIL)


def http2_rows():
    """To a server of HTTP/2: a good stream first, or none."""
    begin, bad = preface()
    good, path, host = headers(1, "/v2/a", API), headers(3, "/admin", API), headers(3, "/v2/a", EVIL)
    return {
        "h2c preface": [begin + bad],
        "h2c preface, in pieces": [begin[:3], begin[3:16], begin[16:], bad],
        "h2c preface alone first": [begin[:24], AWAIT, begin[24:] + bad],
        "h2c stream 3, denied path, in the first segment": [begin + good + path],
        "h2c stream 3, denied host, in the first segment": [begin + good + host],
        "h2c stream 3, denied path, later": [begin + good, AWAIT, path],
        "h2c stream 3, denied path, cut": [begin + good + path[:12], AWAIT, path[12:]],
        "h2c stream 103 of many": [begin + b"".join(headers(1 + 2 * i, "/v2/a", API) for i in range(50)) + headers(103, "/admin", API)],
        "h2c denied stream, then an allowed one": [begin + headers(1, "/admin", API) + headers(3, "/v2/a", API)],
    }


def upgrade(path, host):
    """A WebSocket's handshake (RFC 6455, section 4.1)."""
    fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    return request(path, host=host, fields=fields)


def pipelines(rows):
    http2, frames = preface()
    keep = ["Connection: keep-alive"]
    h2c = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"]
    socket = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    denied = {"path": BAD, "host": request("/v2/a", host=EVIL), "method": request("/v2/a", method="DELETE")}
    for what, bad in denied.items():
        rows[f"keep-alive second, denied {what}"] = [OK, AWAIT, bad]
        rows[f"keep-alive third, denied {what}"] = [OK, AWAIT, OK, AWAIT, bad]
        rows[f"pipeline allowed, denied {what}"] = [OK + bad]
        rows[f"pipeline allowed, denied {what}, in two segments"] = [OK, bad]
        rows[f"pipeline denied {what}, allowed"] = [bad + OK]
    rows.update(
        {
            "pipeline of 20, the last denied": [OK * 20 + BAD],
            "pipeline in two segments": [OK + BAD[:10], BAD[10:]],
            "pipeline in two segments with a pause": [OK + BAD[:-2], AWAIT, BAD[-2:]],
            "keep-alive, the 51st": [*[OK, AWAIT] * 50, BAD],
            "keep-alive in HTTP/1.0": [request("/v2/a", version="HTTP/1.0", fields=keep), AWAIT, request(version="HTTP/1.0")],
            "behind Connection: close": [request("/v2/a", fields=["Connection: close"]) + BAD],
            "behind Connection: close, later": [request("/v2/a", fields=["Connection: close"]), AWAIT, BAD],
            "behind a HEAD": [request("/v2/a", method="HEAD") + BAD],
            "behind a 400": [request("/v2/a", fields=["X\0: y"]) + BAD],
            "behind a denial": [BAD, AWAIT, BAD, AWAIT, request("/admin")],
            "HTTP/2 preface": [http2 + frames],
            "HTTP/2 preface in pieces": [http2[:5], AWAIT, http2[5:] + frames],
            "HTTP/2 preface behind a request": [OK, AWAIT, http2 + frames],
            "HTTP/2 preface behind an empty line": [b"\r\n" + http2 + frames],
            "HTTP/2 upgrade": [request("/v2/a", fields=h2c), AWAIT, http2 + frames],
            "HTTP/2 upgrade of a list": [request("/v2/a", fields=["Connection: Upgrade", "Upgrade: websocket, h2c"]), AWAIT, http2 + frames],
            "HTTP/2 upgrade, upper case": [request("/v2/a", fields=["Connection: Upgrade", "Upgrade: H2C"]), AWAIT, http2 + frames],
            "upgrade, then a request": [request("/v2/a", fields=socket), AWAIT, BAD],
            "upgrade and a request at once": [request("/v2/a", fields=socket) + BAD],
            "upgrade that nobody asked to answer": [request("/v2/a", fields=["Upgrade: x"]), AWAIT, BAD],
            "upgrade with a body": [request("/v2/a", fields=socket + [f"Content-Length: {len(BAD)}"], body=BAD + BAD)],
            "CONNECT, then a request": [request(f"{API}:80", method="CONNECT"), AWAIT, BAD],
            "Expect, then another request": [request("/v2/a", fields=["Expect: 100-continue"]), AWAIT, BAD],
        }
    )


def rows():
    found = {}
    for group in (smuggling, lengths, chunks, hosts, paths, lines, pipelines):
        group(found)
    return found


def controls(table, when):
    for server, port in HTTP.items():
        table.add("http", f"control {when}", server, pieces(port, OK), control=True)
    http2 = preface()[0] + headers(1, "/v2/a", API) + headers(3, "/v2/a", API)
    table.add("http", f"control {when}", "nginx-h2", pieces(HTTP2, http2), control=True)
    table.add("http", f"control {when}", "websockets", pieces(WEBSOCKET, upgrade("/v2/chat", API)), control=True)


def add(table):
    for server, port in HTTP.items():
        for name, parts in rows().items():
            table.add("http", name, server, pieces(port, *parts))
        # Byte by byte, and at every position of the head.
        table.add("http", "byte by byte", server, pieces(port, *[bytes([b]) for b in BAD]))
        table.add("http", "closed before the end", server, pieces(port, BAD[:-2], half_close=True))
        table.add("http", "closed behind the first line", server, pieces(port, b"GET /admin HTTP/1.1\r\n", half_close=True))
        table.add("http", "closed within the first line", server, pieces(port, b"GET /admin", half_close=True))
    for name, parts in http2_rows().items():
        table.add("http", name, "nginx-h2", pieces(HTTP2, *parts))
    for name, parts in {
        "WebSocket to a denied path": [upgrade("/admin", API)],
        "WebSocket to a denied host": [upgrade("/v2/chat", EVIL)],
        "WebSocket behind a request": [OK, AWAIT, upgrade("/admin", API)],
    }.items():
        table.add("http", name, "websockets", pieces(WEBSOCKET, *parts))
