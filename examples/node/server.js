const http = require('node:http');
const ms = require('ms');

const started = Date.now();
http
  .createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ node: process.version, up: ms(Date.now() - started) }) + '\n');
  })
  .listen(Number(process.env.PORT), '127.0.0.1', () => console.log('listening'));

process.on('SIGTERM', () => process.exit(0));
