// A client that prints each message and keeps its positions in a file: node reader.mjs URL UID FILE.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import WebSocket from 'ws';
import { Skylark, web } from '../../dist/esm/index.js';
import { token } from './node.mjs';

const [url, uid, file] = process.argv.slice(2);
const store = {
  load() {
    try {
      return readFileSync(file, 'utf8');
    } catch {
      return null;
    }
  },
  save: (text) => {
    // A kill in the middle of a write leaves the former file.
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
    console.log('saved');
  },
};
const client = new Skylark(url, { token: () => token(uid), transport: web(WebSocket), store });
client.on('recovered', ({ recovered }) => recovered || console.log('lost'));
client.on('message', (message) => console.log('message', message.content.text));
await client.connect();
console.log('online');
