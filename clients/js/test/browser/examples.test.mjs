// The examples in Chromium, as a newcomer opens them.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Node, ROOT, token } from '../node/node.mjs';

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css' };

let node, server, browser;
before(async () => {
  node = await Node.start();
  // The files of the repository, as `python3 -m http.server` serves them.
  server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://x');
    try {
      const bytes = readFileSync(join(ROOT, pathname));
      response.setHeader('content-type', TYPES[extname(pathname)] ?? 'application/octet-stream');
      response.end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const executablePath = process.env.CHROMIUM || '/usr/bin/chromium';
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
});
after(async () => {
  await browser?.close();
  server?.close();
  await Node.stopAll();
});

/** Opens an example as a user. */
async function open(file, uid, jwt = token(uid)) {
  const page = await (await browser.newContext()).newPage();
  page.faults = [];
  page.on('pageerror', (error) => page.faults.push(error.message));
  const query = `token=${jwt}&url=${encodeURIComponent(node.url)}`;
  await page.goto(`http://127.0.0.1:${server.address().port}/examples/${file}?${query}`);
  return page;
}

/** Waits until the page shows the text. */
const shows = (page, text) => page.waitForFunction((text) => document.body.innerText.includes(text), text);

for (const file of ['chat.html', 'chat-vue/dist/index.html']) {
  test(`${file}: two users chat`, async () => {
    const [ann, bob] = await Promise.all(['ann', 'bob'].map((uid) => open(file, uid)));
    await Promise.all([shows(ann, 'online'), shows(bob, 'online')]);
    await ann.fill('input:enabled', 'hello <b>bob</b>');
    await ann.press('input', 'Enter');
    await shows(bob, 'ann: hello <b>bob</b>');
    await shows(ann, 'me: hello <b>bob</b>');
    await node.post('/send/room', { room: 'lobby', message: { action: 'chat', sender: 'back end', content: { text: 'news' } } });
    await Promise.all([ann, bob].map((page) => shows(page, 'back end: news')));
    assert.deepEqual([...ann.faults, ...bob.faults], []);
  });
}

test('chat.html tells a newcomer that the token is wrong', async () => {
  const page = await open('chat.html', 'x', 'not-a-token');
  await shows(page, 'stopped');
  await shows(page, 'error: token');
  assert.deepEqual(page.faults, []);
});

test('chat.html has at most 30 lines of its own code', () => {
  const [, code] = readFileSync(join(ROOT, 'examples/chat.html'), 'utf8').match(/<script>\n([\s\S]*?)\n\s*<\/script>/);
  assert.ok(code.split('\n').length <= 30, code);
});
