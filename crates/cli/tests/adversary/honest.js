// Node's own clients: http with an agent, https with session reuse, an upgrade.
'use strict';
const assert = require('assert');
const fs = require('fs');
const http = require('http');
const https = require('https');
const [, , address, caFile] = process.argv;
const API = 'api.example.com';
const ca = fs.readFileSync(caFile);

function ask(module, options, body) {
  return new Promise((done, fail) => {
    const request = module.request({ host: address, timeout: 8000, ...options }, (response) => {
      response.resume();
      response.on('end', () => done(response.statusCode));
    });
    request.on('timeout', () => request.destroy(new Error('timeout')));
    request.on('error', fail);
    request.end(body);
  });
}

function upgrade() {
  return new Promise((done, fail) => {
    const headers = { Host: API, Connection: 'Upgrade', Upgrade: 'echo' };
    const request = http.request({ host: address, port: 8082, path: '/v2/switch', headers });
    request.on('error', fail);
    request.on('upgrade', (_response, socket) => {
      socket.once('data', (data) => { socket.destroy(); done(String(data)); });
      socket.write('hello');
    });
    request.end();
  });
}

async function main() {
  const headers = { Host: API };
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  for (let i = 0; i < 5; i += 1) {
    assert.equal(await ask(http, { port: 8081, path: `/v2/${i}`, headers, agent }), 200);
  }
  agent.destroy();
  // As clients of search engines do.
  const query = JSON.stringify({ query: { match: { title: 'two words' } } });
  const search = { port: 8082, path: '/v2/a', headers: { ...headers, 'Content-Length': query.length } };
  assert.equal(await ask(http, search, query), 200);
  // Without a length the body goes out in chunks.
  const post = { port: 8082, path: '/up/a', method: 'POST', headers: { ...headers, 'Transfer-Encoding': 'chunked' } };
  assert.equal(await ask(http, post, 'x'.repeat(100000)), 200);
  const secure = new https.Agent({ keepAlive: false, maxCachedSessions: 10 });
  for (let i = 0; i < 3; i += 1) {
    const options = { port: 8446, path: '/v2/a', headers, servername: API, ca, agent: secure };
    assert.equal(await ask(https, options), 200);
  }
  assert.equal(await upgrade(), 'hello');
  console.log('all well');
}

main().catch((error) => { console.log(String(error)); process.exitCode = 1; });
