// Node's http and tls: each writes down every request that it acts on, as servers.py does.
'use strict';
const fs = require('fs');
const http = require('http');
const https = require('https');
const [, , out, cert, key] = process.argv;

// Clients' ports, noted early: a socket that has ended does not know its peer any more.
const peers = new WeakMap();

function note(socket) {
  peers.set(socket, socket.remotePort ?? 0);
  // Attackers reset connections; that must not end the server.
  socket.on('error', () => {});
}

function record(server, socket, method, hosts, paths) {
  const line = { server, port: peers.get(socket) ?? 0, method, hosts, paths };
  fs.appendFileSync(out, JSON.stringify(line) + '\n');
}

function paths(url) {
  const found = [url.replace(/^[a-z]+:\/\/[^/]*/i, '').split('?')[0]];
  try {
    found.push(new URL(url, 'http://base.invalid').pathname);
  } catch {
    // Not a URL: the raw target stands alone.
  }
  return found;
}

function hosts(request) {
  const absolute = /^[a-z]+:\/\/([^/?#]*)/i.exec(request.url);
  const list = [request.headers.host ?? ''];
  if (absolute) list.push(absolute[1]);
  return list;
}

function serve(name) {
  return (request, response) => {
    record(name, request.socket, request.method, hosts(request), paths(request.url));
    let size = 0;
    request.on('data', (piece) => { size += piece.length; });
    request.on('end', () => response.end(`read ${size}\n`));
  };
}

// Agrees to any upgrade that a path asks for, and then sends back what it gets.
function upgrade(request, socket) {
  record('node', socket, request.method, hosts(request), paths(request.url));
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
  socket.pipe(socket);
}

// Heads of 20 KiB are honest.
const LIMITS = { maxHeaderSize: 1 << 16 };
const plain = http.createServer(LIMITS, serve('node'));
plain.on('connection', note);
plain.on('upgrade', (request, socket) => {
  if (request.url.startsWith('/v2/switch')) return upgrade(request, socket);
  record('node', socket, request.method, hosts(request), paths(request.url));
  return socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
});
plain.listen({ port: 8082, host: '::', backlog: 511 });

const options = {
  cert: fs.readFileSync(cert),
  key: fs.readFileSync(key),
  minVersion: 'TLSv1.2',
  SNICallback: (_name, done) => done(null, null),
};
const secure = https.createServer(options, serve('node-https'));
secure.on('secureConnection', (socket) => {
  note(socket);
  record('node-tls', socket, 'TLS', [socket.servername || ''], []);
});
secure.on('tlsClientError', () => {});
secure.listen({ port: 8446, host: '::', backlog: 511 }, () => console.log('ready'));
