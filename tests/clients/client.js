// node client.js ADDRESS PORT NAME PATH VERSION CA: posts twice over connections of their own, and says what Node makes
// of them.
'use strict';

const fs = require('fs');
const https = require('https');

const [address, port, name, path, version, ca] = process.argv.slice(2);
let session;

function call(next) {
  const request = https.request({
    host: address, port, path, servername: name, method: 'POST', agent: false, timeout: 10_000,
    headers: { host: name, connection: 'close' },
    ca: fs.readFileSync(ca), minVersion: version, maxVersion: version, session,
  });
  request.on('socket', (socket) => socket.on('session', (made) => { session = made; }));
  request.on('timeout', () => request.destroy(new Error('no answer')));
  request.on('error', (error) => console.log(`refused: ${error.message}`));
  request.on('response', (response) => {
    const { socket } = response;
    // Absent on a resumed connection of some versions of Node.
    const subject = socket.getPeerCertificate().subject?.CN;
    const how = socket.isSessionReused() ? 'resumed' : 'new';
    let answer = '';
    response.on('data', (part) => { answer += part; });
    response.on('end', () => {
      console.log(`${how} ${response.statusCode} ${answer} CN=${subject} ${socket.getProtocol()} ${socket.authorized}`);
      next?.();
    });
  });
  request.end('{}');
}

call(() => call());
