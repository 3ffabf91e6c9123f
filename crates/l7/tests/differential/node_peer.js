// What Node's http makes of streams: see process_peer.rs.
'use strict';

const fs = require('fs');
const http = require('http');
const { Duplex } = require('stream');

// The parser works at once, streams in the rounds behind it; what is quiet for so many is done.
const ROUNDS = 12;

function note(seen, request) {
  const asked = {
    // llhttp 6 has none for some heads that it misreads.
    method: String(request.method),
    target: request.url,
    host: request.headers.host === undefined ? null : request.headers.host,
    body: 0,
    done: false,
  };
  seen.requests.push(asked);
  return asked;
}

function read(data, answer) {
  const seen = { requests: [], end: 'open' };
  const close = () => { seen.end = 'closed'; };
  const server = http.createServer({ connectionsCheckingInterval: 0x7fffffff }, (request, response) => {
    const asked = note(seen, request);
    request.on('data', (piece) => { asked.body += piece.length; });
    request.on('error', close);
    request.on('end', () => {
      asked.done = true;
      response.end();
    });
  });
  server.keepAliveTimeout = 0;
  server.on('connect', (request) => {
    note(seen, request).done = true;
    close();
  });
  const socket = new Duplex({
    read() {},
    write(chunk, encoding, done) { done(); },
  });
  server.on('clientError', (error, broken) => {
    close();
    broken.destroy();
  });
  socket.on('error', close);
  socket.on('close', close);
  socket.on('finish', close);
  server.emit('connection', socket);
  socket.push(data);
  let rounds = ROUNDS;
  const wait = () => {
    rounds -= 1;
    if (rounds > 0) {
      setImmediate(wait);
      return;
    }
    answer(JSON.stringify(seen));
    socket.destroy();
    server.close();
  };
  setImmediate(wait);
}

function main() {
  const input = fs.readFileSync(0);
  const lines = [];
  let at = 0;
  const next = () => {
    if (at === input.length) {
      fs.writeSync(1, lines.length === 0 ? '' : lines.join('\n') + '\n');
      process.exit(0);
    }
    const length = input.readUInt32BE(at);
    const data = Buffer.from(input.subarray(at + 4, at + 4 + length));
    at += 4 + length;
    read(data, (line) => {
      lines.push(line);
      setImmediate(next);
    });
  };
  next();
}

main();
