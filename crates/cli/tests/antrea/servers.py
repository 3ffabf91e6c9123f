"""Answers as the test image of Kubernetes does: /clientip, /hostname, /shell?cmd (POST), on ports.

servers.py NAME CERT KEY PORT[/tls] ...
"""
import http.server
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/clientip":
            address = self.client_address[0].removeprefix("::ffff:")
            self.answer(f"{address}:{self.client_address[1]}")
        elif path in ("/hostname", "/"):
            self.answer(sys.argv[1])
        else:
            self.answer(f"path {path}")

    def do_POST(self):
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        fields = urllib.parse.parse_qs(body.decode())
        if self.path.startswith("/shell") and "cmd" in fields:
            done = subprocess.run(["sh", "-c", fields["cmd"][0]], capture_output=True, check=False)
            self.answer(done.stdout.decode())
        else:
            self.answer(f"got {length}")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass


def main():
    for word in sys.argv[4:]:
        number, _, tls = word.partition("/")
        server = Server(("::", int(number)), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(sys.argv[2], sys.argv[3])
            # The handshake is the connection's own thread's work.
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


main()
