// The client in Chromium, against a real node.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Node, Proxy, token } from '../node/node.mjs';

const SCRIPT = readFileSync(new URL('../../dist/skylark.global.js', import.meta.url));
/** The page: a client whose events are in `log`. */
const PAGE = `<!doctype html><meta charset="utf-8"><title>test</title><script src="/skylark.global.js"></script><script>
  const query = new URLSearchParams(location.search);
  const client = new skylark.Skylark(query.get('url'), {
    token: () => fetch('/token?uid=' + query.get('uid')).then((answer) => answer.text()),
    store: skylark.localPositions('positions'),
  });
  const log = [];
  for (const event of ['state', 'recovered', 'stop', 'error']) client.on(event, (value) => log.push({ event, value }));
  client.on('message', (message) => log.push({ event: 'message', value: message.content.text }));
  const room = client.room('lobby');
  room.join();
  client.connect();
</script>`;

let node, proxy, server, browser;
before(async () => {
  node = await Node.start();
  proxy = await Proxy.start(node.port);
  server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://x');
    if (pathname === '/token') return response.end(token(searchParams.get('uid')));
    const isScript = pathname === '/skylark.global.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? SCRIPT : PAGE);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const executablePath = process.env.CHROMIUM || '/usr/bin/chromium';
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
});
after(async () => {
  await browser?.close();
  server?.close();
  proxy?.stop();
  await Node.stopAll();
});

/** Opens the page of a user. */
async function open(context, uid) {
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/?uid=${uid}&url=${encodeURIComponent(proxy.url)}`);
  await page.waitForFunction(() => client.state === 'online' && room.joined);
  return page;
}

const texts = (page) => page.evaluate(() => log.filter(({ event }) => event === 'message').map(({ value }) => value));
const states = (page) => page.evaluate(() => log.filter(({ event }) => event === 'state').map(({ value }) => value));

test('page that was offline comes back with what it missed', async () => {
  const context = await browser.newContext();
  const page = await open(context, 'offline');
  await node.push('offline', 'one');
  await page.waitForFunction(() => log.some(({ value }) => value === 'one'));
  await context.setOffline(true);
  proxy.cut();
  await page.waitForFunction(() => client.state === 'waiting');
  await node.push('offline', 'two');
  proxy.isOpen = true;
  await context.setOffline(false);
  await page.waitForFunction(() => log.some(({ value }) => value === 'two'));
  assert.deepEqual(await texts(page), ['one', 'two']);
  await context.close();
});

test('online event wakes a client that waits', async () => {
  const context = await browser.newContext();
  const page = await open(context, 'waker');
  proxy.cut();
  // Long waits: only the event can bring the client back in time.
  await page.evaluate(() => (Math.random = () => 1));
  await page.waitForFunction(() => log.filter(({ value }) => value === 'waiting').length >= 4);
  proxy.isOpen = true;
  await page.evaluate(() => dispatchEvent(new Event('online')));
  await page.waitForFunction(() => client.state === 'online', undefined, { timeout: 2000 });
  await context.close();
});

test('hidden tab gets its messages and stays online', async () => {
  const context = await browser.newContext();
  const page = await open(context, 'hidden');
  const session = await context.newCDPSession(page);
  const other = await context.newPage();
  await other.bringToFront();
  await session.send('Emulation.setFocusEmulationEnabled', { enabled: false });
  await session.send('Page.setWebLifecycleState', { state: 'frozen' });
  await node.push('hidden', 'while frozen');
  await session.send('Page.setWebLifecycleState', { state: 'active' });
  await page.bringToFront();
  await page.waitForFunction(() => log.some(({ value }) => value === 'while frozen'));
  await context.close();
});

test('page that went back and forward goes on', async () => {
  const context = await browser.newContext();
  const page = await open(context, 'history');
  await page.goto('about:blank');
  await node.push('history', 'while away');
  await page.goBack();
  await page.waitForFunction(() => client.state === 'online' && log.some(({ value }) => value === 'while away'));
  assert.deepEqual(await texts(page), ['while away']);
  await context.close();
});

test('reloaded page continues from its position', async () => {
  const context = await browser.newContext();
  const page = await open(context, 'reloader');
  await node.push('reloader', 'before');
  await page.waitForFunction(() => log.some(({ value }) => value === 'before'));
  await Promise.all([page.waitForEvent('load'), page.reload()]);
  await node.push('reloader', 'after');
  await page.waitForFunction(() => log.some(({ value }) => value === 'after'));
  assert.deepEqual(await texts(page), ['after']);
  await context.close();
});

test('two tabs of one user both get each message once', async () => {
  const context = await browser.newContext();
  const tabs = [await open(context, 'tabs'), await open(context, 'tabs')];
  for (let n = 0; n < 5; n++) await node.push('tabs', `${n}`);
  await tabs[0].evaluate(() => room.publish('from the first tab'));
  for (const tab of tabs) await tab.waitForFunction(() => log.some(({ value }) => value === '4'));
  await tabs[1].waitForFunction(() => log.some(({ value }) => value === 'from the first tab'));
  assert.deepEqual(await texts(tabs[0]), ['0', '1', '2', '3', '4']);
  assert.deepEqual(await texts(tabs[1]), ['0', '1', '2', '3', '4', 'from the first tab']);
  await tabs[0].close();
  await node.push('tabs', 'one tab left');
  await tabs[1].waitForFunction(() => log.some(({ value }) => value === 'one tab left'));
  assert.deepEqual(await states(tabs[1]), ['connecting', 'online']);
  await context.close();
});
