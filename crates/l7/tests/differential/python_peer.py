"""What Python's http.server makes of streams: see process_peer.rs."""

import io
import json
import struct
import sys
from http.server import BaseHTTPRequestHandler


class Waits(Exception):
    """All bytes are read, and the client has not closed."""


class Stream(io.BytesIO):
    """The end of the bytes is not the end of the stream: the handler would take it for a line end."""

    def readline(self, limit=-1):
        line = super().readline(limit)
        if not line.endswith(b"\n") and len(line) != limit:
            raise Waits
        return line

    def read(self, size=-1):
        data = super().read(size)
        if size < 0 or len(data) < size:
            raise Waits
        return data


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        self.rfile, self.seen = self.request
        self.wfile = io.BytesIO()

    def finish(self):
        pass

    def log_message(self, *args):
        pass

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.act
        raise AttributeError(name)

    def act(self):
        """Reads the body as handlers in CPython do; the chunked coding is not known to it."""
        asked = {
            "method": self.command,
            "target": self.path,
            "host": self.headers.get("Host"),
            "body": None,
            "done": False,
        }
        self.seen.append(asked)
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length", 0))
        asked["body"] = len(self.rfile.read(length))
        asked["done"] = True


def read(data):
    seen = []
    try:
        Handler((Stream(data), seen), ("127.0.0.1", 0), None)
        end = "closed"
    except Waits:
        end = "open"
    except (ValueError, OverflowError):
        end = "closed"
    return {"requests": seen, "end": end}


def main():
    source = sys.stdin.buffer
    while head := source.read(4):
        data = source.read(struct.unpack(">I", head)[0])
        print(json.dumps(read(data)))


main()
