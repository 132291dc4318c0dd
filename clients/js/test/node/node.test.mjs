// The client against real nodes.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it as test } from 'node:test';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { task } from '../../dist/esm/index.js';
import { Node, Proxy, client, closeAll, freePort, online, token, until } from './node.mjs';

/** Seconds for which token-auth admits a token after its end. */
const LEEWAY = 5;

let node;
before(async () => (node = await Node.start()));
after(async () => {
  closeAll();
  await Node.stopAll();
});

describe('messages', () => {
  test('two clients talk in a room, and a value arrives as it was', async () => {
    const [ann, bob] = await Promise.all(['ann', 'bob'].map((uid) => online(node.url, uid)));
    const [here, there] = [ann, bob].map(({ it }) => it.room('lobby'));
    await Promise.all([here.join(), there.join()]);
    const got = new Promise((resolve) => there.on('message', resolve));
    const value = { n: 3, deep: [true, null, '好'] };
    const published = await here.publish(value);
    assert.equal(published.delivered, 1);
    const message = await got;
    assert.deepEqual(message.json(), value);
    assert.deepEqual([message.sender, message.stream, message.action], ['ann', { room: 'lobby' }, 'chat']);
    assert.equal(typeof message.position.offset, 'number');
  });

  test('message to a user names nobody else, and offline users are told', async () => {
    const [ann, bob] = await Promise.all(['ann2', 'bob2'].map((uid) => online(node.url, uid)));
    await ann.it.publish({ user: 'bob2' }, 'hi', { extra: { nick: 'A' } });
    await until('the message', () => bob.texts().length);
    assert.deepEqual(bob.log.at(-1).value.stream, { user: 'bob2' });
    assert.deepEqual(bob.log.at(-1).value.extra, { nick: 'A' });
    assert.deepEqual((await ann.it.publish({ user: 'nobody' }, 'hi')).offline, ['nobody']);
  });

  test('refusals name the field', async () => {
    const { it } = await online(node.url, 'ann3');
    await assert.rejects(it.publish({ room: 'never-joined' }, 'hi'), { code: 403 });
    await assert.rejects(it.request('no_such_key'), { code: 404 });
    await assert.rejects(it.request('room_join', { room: '' }), (error) => error.code === 400 && /room/.test(error.message));
  });

  test('hundred requests at once get their own answers', async () => {
    const { it } = await online(node.url, 'ann4');
    const rooms = Array.from({ length: 100 }, (_, n) => `r${n}`);
    const replies = await Promise.all(rooms.map((room) => it.request('room_join', { room })));
    assert.deepEqual(replies.map(({ data }) => data.room), rooms);
  });
});

describe('the end of a connection', { concurrency: true }, () => {
  test('kick is told and stays away', async () => {
    const { it, log } = await online(node.url, 'kicked');
    await node.post('/kick', { uid: 'kicked', reason: 'signed out' });
    await until('the stop', () => it.state === 'stopped');
    const [kicked] = log.filter(({ event }) => event === 'kicked');
    assert.deepEqual([kicked.value.code, kicked.value.message], [4503, 'signed out']);
    await assert.rejects(it.request('x'), { code: 'stopped' });
  });

  test('wrong token is asked for once more, then the client stops with the reason', async () => {
    let count = 0;
    const { it } = client(node.url, 'x', { token: () => (count++, 'not-a-token') });
    await assert.rejects(it.connect(), (error) => error.code === 4501 && error.message.length > 0);
    assert.equal(count, 2);
  });

  test('new token after a wrong one is admitted', async () => {
    const tokens = ['not-a-token', token('second')];
    const { it } = await online(node.url, 'x', { token: () => tokens.shift() });
    assert.equal(it.uid, 'second');
  });

  test('token is refreshed before its end, and the connection stays', async () => {
    let count = 0;
    const { it, log } = await online(node.url, 'x', { token: () => token('short', count++ ? 600 : -LEEWAY + 2) });
    const { cid } = it.bound.data;
    await until('the refresh', () => count === 2);
    const { data } = await it.request('room_join', { room: 'after' });
    assert.equal(data.room, 'after');
    await new Promise((resolve) => setTimeout(resolve, 1500));
    assert.equal(it.bound.data.cid, cid);
    assert.deepEqual(log.filter(({ event }) => event === 'state').map(({ value }) => value), ['connecting', 'online']);
  });

  test('token that was not refreshed closes the connection, and a new one brings it back', async () => {
    let made;
    const ask = () => {
      if (made?.it.state === 'online') throw new Error('the back end is away');
      return token('expiring', made ? 600 : -LEEWAY + 2);
    };
    made = await online(node.url, 'x', { token: ask });
    const { it, log } = made;
    const { cid } = it.bound.data;
    await until('another connection', () => it.state === 'online' && it.bound.data.cid !== cid);
    assert.equal(log.find(({ event }) => event === 'error').value.message, 'the back end is away');
  });

  test('static token that expired stops', async () => {
    const { it } = await online(node.url, 'x', { token: token('static', -LEEWAY + 2) });
    await until('the stop', () => it.state === 'stopped');
  });
});

describe('resume', { concurrency: true }, () => {
  test('connection that was cut misses nothing and repeats nothing', async () => {
    const own = await Node.start();
    const proxy = await Proxy.start(own.port);
    const { it, log, texts } = await online(proxy.url, 'resumer');
    const room = it.room('news');
    await room.join();
    const expected = [];
    const push = async (n) => {
      await own.push('resumer', `user ${n}`);
      await own.post('/send/room', { room: 'news', message: { action: 'chat', content: { text: `room ${n}` } } });
      await own.post('/send/all', { action: 'chat', content: { text: `all ${n}` } });
      expected.push(`user ${n}`, `room ${n}`, `all ${n}`);
    };
    for (let round = 0; round < 3; round++) {
      await push(`${round} online`);
      proxy.cut();
      await until('the loss', () => it.state === 'waiting');
      await push(`${round} away`);
      proxy.isOpen = true;
      await until('the return', () => it.state === 'online' && room.joined);
      await push(`${round} back`);
    }
    await until('all messages', () => texts().length >= expected.length);
    assert.deepEqual(texts().sort(), expected.sort());
    const recovered = log.filter(({ event }) => event === 'recovered').map(({ value }) => value.recovered);
    assert.equal(recovered.length, 9);
    assert.ok(recovered.every(Boolean));
    proxy.stop();
    await own.stop();
  });

  test('client that is killed continues from its file', async () => {
    const file = join(node.folder, 'positions.json');
    const program = fileURLToPath(new URL('reader.mjs', import.meta.url));
    const got = [];
    const run = async () => {
      const child = spawn(process.execPath, [program, node.url, 'reader', file], { stdio: ['ignore', 'pipe', 'inherit'] });
      const lines = [];
      createInterface({ input: child.stdout }).on('line', (line) => {
        lines.push(line);
        if (line.startsWith('message')) got.push(line.slice(8));
        if (line === 'lost') got.push(line);
      });
      await until('the reader', () => lines.includes('online') && lines.includes('saved'));
      return { lines, kill: () => (child.kill('SIGKILL'), once(child, 'exit')) };
    };
    const expected = [];
    for (let round = 0; round < 3; round++) {
      const reader = await run();
      expected.push(`online ${round}`, `away ${round}`);
      const saves = reader.lines.filter((line) => line === 'saved').length;
      await node.push('reader', `online ${round}`);
      await until('the position', () => reader.lines.filter((line) => line === 'saved').length > saves && got.includes(`online ${round}`));
      await reader.kill();
      await node.push('reader', `away ${round}`);
    }
    const last = await run();
    await until('the last message', () => got.includes('away 2'));
    await last.kill();
    assert.deepEqual(got, expected);
  });

  test('restart of the node: room joined again, publish answered, loss told', async () => {
    const other = await Node.start();
    const { it, log } = await online(other.url, 'ann');
    const bob = await online(other.url, 'bob');
    await Promise.all([it.room('lobby').join(), bob.it.room('lobby').join()]);
    await other.push('ann', 'before');
    await other.stop();
    await until('the loss', () => it.state === 'waiting' || it.state === 'connecting');
    const published = it.room('lobby').publish('made while away');
    await other.start();
    await until('bob', () => bob.it.state === 'online' && bob.it.room('lobby').joined);
    assert.equal(typeof (await published).id, 'number');
    const { recovered, reason } = log.find(({ event, value }) => event === 'recovered' && 'user' in value.stream).value;
    assert.deepEqual([recovered, reason], [false, 'epoch']);
    await other.push('ann', 'after');
    await until('the message', () => log.some(({ event, value }) => event === 'message' && value.content.text === 'after'));
    await other.stop();
  });

  test('slow consumer comes back and is told what it lost', async () => {
    const small = await Node.start({ queue: { bytes: 65_536, write_timeout: '1s' } });
    const proxy = await Proxy.start(small.port);
    const { it, log, texts } = await online(proxy.url, 'slow');
    const { cid } = it.bound.data;
    proxy.stall();
    const big = 'x'.repeat(50_000);
    for (let n = 0; n < 300; n++) await small.push('slow', big);
    proxy.cut();
    proxy.isOpen = true;
    await until('another connection', () => it.state === 'online' && it.bound.data.cid !== cid);
    const { recovered, reason } = log.find(({ event, value }) => event === 'recovered' && 'user' in value.stream).value;
    assert.deepEqual([recovered, reason], [false, 'trimmed']);
    await small.push('slow', 'after');
    await until('a new message', () => texts().includes('after'));
    proxy.stop();
    await small.stop();
  });
});

describe('mini program', () => {
  test('task of a stand-in for wx binds, joins, publishes and is kicked', async () => {
    // The surface of wx.connectSocket, over the package ws.
    const wx = {
      connectSocket({ url, complete }) {
        const socket = new WebSocket(url);
        complete?.();
        return {
          send: ({ data }) => socket.send(data),
          close: ({ code, reason }) => socket.close(code, reason),
          onOpen: (listener) => (socket.onopen = () => listener({})),
          onMessage: (listener) => (socket.onmessage = ({ data }) => listener({ data })),
          onClose: (listener) => (socket.onclose = ({ code, reason }) => listener({ code, reason })),
          onError: (listener) => (socket.onerror = ({ message }) => listener({ errMsg: message })),
        };
      },
    };
    const { it, texts } = await online(node.url, 'mini', { transport: task((options) => wx.connectSocket(options)) });
    const other = await online(node.url, 'browser');
    await Promise.all([it.room('mini').join(), other.it.room('mini').join()]);
    await other.it.room('mini').publish('hi');
    await until('the message', () => texts().includes('hi'));
    await node.post('/kick', { uid: 'mini' });
    await until('the stop', () => it.state === 'stopped');
  });
});

describe('cluster', () => {
  test('draining node sends its clients to the next one', async () => {
    const port = await freePort();
    const redis = spawn('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--dir', node.folder], { stdio: 'ignore' });
    try {
      const bus = { kind: 'redis', redis: { url: `redis://127.0.0.1:${port}` } };
      const named = (number) => ({ bus, node: { id: `c${number}`, number } });
      const nodes = await Promise.all([1, 2].map((number) => Node.start(named(number))));
      await until('both nodes', async () => (await nodes[0].get('/nodes')).items.filter(({ address }) => address).length === 2);
      const { it, log } = await online(nodes[0].url, 'moved');
      assert.equal(it.bound.data.sid, 'c1');
      await nodes[0].stop('SIGTERM');
      await until('the other node', () => it.state === 'online' && it.bound.data.sid === 'c2');
      assert.ok(!log.some(({ event }) => event === 'stop'));
      await nodes[1].push('moved', 'here');
      await until('the message', () => log.some(({ event }) => event === 'message'));
      closeAll();
      await nodes[1].stop();
    } finally {
      redis.kill();
    }
  });
});
