import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it as test, mock } from 'node:test';
import { Unauthorized, codes, comesBack } from '../../dist/esm/index.js';
import { bind, client, fakeTime, online, settle } from './fake.mjs';

let time;
beforeEach(() => (time = fakeTime()));
afterEach(() => time.end());
const names = (log, event) => log.filter(([name]) => name === event).map(([, value]) => value);

describe('states', () => {
  test('connect dials, binds and is online', async () => {
    const { it, net, log, connected } = await online({ device: 'd1', channel: 'web', info: { appVersion: 2 } });
    await connected;
    assert.deepEqual(names(log, 'state'), ['connecting', 'online']);
    assert.equal(net.last.url, 'wss://im.example/ws?dialect=yunque.json');
    const { data } = net.asked('client_bind')[0];
    const resume = '[["u"],["all"]]';
    assert.deepEqual(data, { token: 't', deviceId: 'd1', channel: 'web', appVersion: '2', events: '1', resume });
    assert.equal(it.uid, 'ann');
    assert.equal(names(log, 'bound').length, 1);
  });

  test('token is not in the URL, and a query of the URL stays', async () => {
    const { Skylark } = await import('../../dist/esm/index.js');
    const urls = [];
    const transport = (url) => (urls.push(url), { send() {}, close() {} });
    const it = new Skylark('ws://host/ws?a=1', { token: 'secret', transport });
    it.connect().catch(() => {});
    await settle();
    assert.deepEqual(urls, ['ws://host/ws?a=1&dialect=yunque.json']);
    it.close();
  });

  // Each state with each event: the state after it.
  const reach = {
    idle: async () => client(),
    connecting: async () => {
      const made = client();
      made.it.connect().catch(() => {});
      await settle();
      return made;
    },
    online: () => online(),
    waiting: async () => {
      const made = await online();
      made.net.drop();
      return made;
    },
    stopped: async () => {
      const made = await online();
      made.it.close();
      return made;
    },
  };
  const events = {
    connect: ({ it }) => void it.connect().catch(() => {}),
    close: ({ it }) => it.close(),
    wake: ({ it }) => it.wake(),
    lost: ({ net }) => net.last?.events.closed(1006, ''),
    refused: ({ net }) => net.last?.events.closed(4500, 'protocol error'),
    time: () => time.pass(40_000),
  };
  const table = {
    idle: { connect: 'connecting', close: 'stopped', wake: 'idle', lost: 'idle', refused: 'idle', time: 'idle' },
    connecting: { connect: 'connecting', close: 'stopped', wake: 'connecting', lost: 'waiting', refused: 'stopped' },
    online: { connect: 'online', close: 'stopped', wake: 'online', lost: 'waiting', refused: 'stopped', time: 'online' },
    // A socket that is gone says nothing any more.
    waiting: { connect: 'connecting', close: 'stopped', wake: 'connecting', lost: 'waiting', refused: 'waiting' },
    stopped: { connect: 'connecting', close: 'stopped', wake: 'stopped', lost: 'stopped', refused: 'stopped' },
  };
  for (const [state, row] of Object.entries(table)) {
    for (const [event, after] of Object.entries(row)) {
      test(`${state}, ${event}: ${after}`, async () => {
        const made = await reach[state]();
        assert.equal(made.it.state, state);
        await events[event](made);
        await settle();
        assert.equal(made.it.state, after);
      });
    }
  }

  test('dial without an answer is given up after 15 s', async () => {
    const { it, net } = await reach.connecting();
    await time.pass(14_999);
    assert.equal(it.state, 'connecting');
    await time.pass(1);
    assert.equal(it.state, 'waiting');
    assert.ok(net.last.isClosed);
  });

  test('events of a former socket are ignored', async () => {
    const { it, net } = await online();
    const former = net.last;
    net.drop();
    await time.pass(250);
    assert.equal(net.sockets.length, 2);
    await bind(net);
    former.events.closed(4503, 'kicked');
    former.events.received('{"type":4,"content":"{}"}');
    assert.equal(it.state, 'online');
  });

  test('address that the platform refuses rejects connect', async () => {
    const transport = () => {
      throw new SyntaxError('invalid URL');
    };
    const { it } = client({ transport });
    await assert.rejects(it.connect(), { code: 'url', message: 'invalid URL' });
    assert.equal(it.state, 'stopped');
  });
});

describe('reconnect', () => {
  for (const random of [0, 0.5, 0.999]) {
    test(`waits have full jitter: ${random} of the bound`, async () => {
      mock.method(Math, 'random', () => random);
      const { it, net } = await online();
      for (const bound of [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
        net.drop();
        assert.equal(it.state, 'waiting');
        const before = net.sockets.length;
        const wait = Math.trunc(bound * random);
        if (wait > 0) {
          await time.pass(wait - 1);
          assert.equal(net.sockets.length, before, `${bound} ms`);
        }
        await time.pass(2);
        assert.equal(net.sockets.length, before + 1, `${bound} ms`);
        await bind(net);
      }
    });
  }

  test('waits begin anew after 30 s online, not at the bind', async () => {
    const { net } = await online();
    const dials = async (wait) => {
      const before = net.sockets.length;
      net.drop();
      await time.pass(wait - 1);
      assert.equal(net.sockets.length, before);
      await time.pass(1);
      assert.equal(net.sockets.length, before + 1);
      await bind(net);
    };
    await dials(250);
    await dials(500);
    await time.pass(29_999);
    await dials(1000);
    await time.pass(30_000);
    await dials(250);
  });

  test('next is dialled once, then the first address', async () => {
    const { net } = await online();
    net.drop(4003, 'restart; next 10.0.0.2:8080');
    await time.pass(250);
    assert.equal(net.last.url, 'wss://10.0.0.2:8080/ws?dialect=yunque.json');
    net.drop();
    await time.pass(250);
    assert.equal(net.last.url, 'wss://im.example/ws?dialect=yunque.json');
    net.drop(4004, 'too many connections; next wss://b.example/im');
    await time.pass(250);
    assert.equal(net.last.url, 'wss://b.example/im?dialect=yunque.json');
  });

  test('close codes come back or stay away', () => {
    for (const [name, code] of Object.entries(codes)) assert.equal(comesBack(code), code < 4500, name);
    for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013]) assert.ok(comesBack(code), `${code}`);
    for (const code of [1002, 1007, 1009]) assert.ok(!comesBack(code), `${code}`);
  });

  for (const code of [4500, 4504, 4505, 1002, 1007, 1009]) {
    test(`${code} stops the client`, async () => {
      const { it, net, log } = await online();
      net.drop(code, 'why');
      assert.equal(it.state, 'stopped');
      const [stop] = names(log, 'stop');
      assert.equal(stop.code, code);
      assert.equal(stop.message, 'why');
      await assert.rejects(it.request('x'), { code: 'stopped' });
      await time.pass(100_000);
      assert.equal(net.sockets.length, 1);
    });
  }

  test('kick is told with its text, even if only the message arrives', async () => {
    for (const code of [4503, 1006]) {
      const { net, log } = await online();
      net.message({ action: '999', sender: '0', content: { text: 'bye' } });
      net.drop(code);
      assert.equal(names(log, 'message').length, 0);
      assert.equal(names(log, 'kicked')[0].message, 'bye');
      assert.equal(names(log, 'stop')[0].code, 4503);
    }
  });

  test('takeover by another device is told', async () => {
    const { net, log } = await online();
    net.message({ action: '999', sender: '0', content: {} });
    net.drop(4502, 'replaced by another device');
    assert.equal(names(log, 'replaced').length, 1);
    assert.equal(names(log, 'kicked').length, 0);
  });

  test('silence of 2.4 heartbeats ends the connection', async () => {
    const { it, net } = await online({}, { heartbeat: '10' });
    await time.pass(20_000);
    net.send(1);
    assert.deepEqual(net.last.sent.at(-1), { type: 0 });
    await time.pass(23_999);
    assert.equal(it.state, 'online');
    await time.pass(1);
    assert.equal(it.state, 'waiting');
  });

  test('wake tests a connection, and dials at once while waiting', async () => {
    const { it, net } = await online();
    await time.pass(10_000);
    it.wake();
    assert.equal(net.asked('ping').length, 1);
    await time.pass(4000);
    net.answer(net.asked('ping')[0], {}, 404);
    await time.pass(10_000);
    assert.equal(it.state, 'online');
    it.wake();
    await time.pass(5000);
    assert.equal(it.state, 'waiting');
    it.wake();
    await settle();
    assert.equal(it.state, 'connecting');
  });

  test('wake after a long sleep dials at once', async () => {
    const { it, net } = await online();
    mock.timers.setTime(Date.now() + 3_600_000);
    it.wake();
    await settle();
    assert.notEqual(it.state, 'online');
    assert.equal(net.asked('ping', net.sockets[0]).length, 0);
  });
});

describe('token', () => {
  test('is refreshed at 80 % of its life', async () => {
    let count = 0;
    const expires = Date.now() / 1000 + 100;
    const { net } = await online({ token: () => `t${++count}` }, { expires: `${expires}`, heartbeat: '600' });
    await time.pass(79_999);
    assert.equal(net.asked('client_refresh').length, 0);
    await time.pass(1);
    const [refresh] = net.asked('client_refresh');
    assert.equal(refresh.data.token, 't2');
    net.answer(refresh, { expires: `${expires + 100}` });
    await time.pass(96_000);
    assert.equal(net.asked('client_refresh').length, 2);
    assert.equal(net.sockets.length, 1);
  });

  test('failure of a refresh is told and tried again', async () => {
    let count = 0;
    const token = () => (++count === 2 ? Promise.reject(new Error('offline')) : `t${count}`);
    const { net, log } = await online({ token }, { expires: `${Date.now() / 1000 + 100}`, heartbeat: '600' });
    await time.pass(80_000);
    assert.equal(names(log, 'error')[0].message, 'offline');
    await time.pass(4000);
    assert.equal(net.asked('client_refresh')[0].data.token, 't3');
  });

  test('is asked again after 4002', async () => {
    let count = 0;
    const { net } = await online({ token: () => `t${++count}` });
    net.drop(4002, 'token expired');
    await time.pass(250);
    await bind(net);
    assert.equal(net.asked('client_bind')[0].data.token, 't2');
  });

  test('stays after other closes', async () => {
    let count = 0;
    const { net } = await online({ token: () => `t${++count}` });
    net.drop(4008);
    await time.pass(250);
    await bind(net);
    assert.equal(net.asked('client_bind')[0].data.token, 't1');
  });

  test('second refusal in a row stops with the reason', async () => {
    let count = 0;
    const { it, net, log } = client({ token: () => `t${++count}` });
    const connected = it.connect();
    connected.catch(() => {});
    for (let dial = 0; dial < 2; dial++) {
      await settle();
      net.last.events.opened();
      net.tell('client_handshake', {}, 401, 'signature does not match');
      net.drop(4501, 'unauthorized');
      await time.pass(500);
    }
    await assert.rejects(connected, { code: 4501, message: 'signature does not match' });
    assert.equal(count, 2);
    assert.equal(names(log, 'stop').length, 1);
  });

  test('a refusal after a success is asked again', async () => {
    const { it, net } = await online();
    for (let round = 0; round < 3; round++) {
      net.drop(4501);
      assert.equal(it.state, 'waiting');
      await time.pass(30_000);
      await bind(net);
    }
  });

  for (const code of [4002, 4501]) {
    test(`static token stops after ${code}`, async () => {
      const { it, net } = await online({ token: 'static' });
      net.drop(code);
      assert.equal(it.state, 'stopped');
    });
  }

  test('Unauthorized of token() stops, other errors wait', async () => {
    const failures = [new Error('HTTP 502'), new Unauthorized()];
    const { it, log } = client({ token: () => Promise.reject(failures.shift()) });
    const connected = it.connect();
    connected.catch(() => {});
    await settle();
    assert.equal(it.state, 'waiting');
    assert.equal(names(log, 'error')[0].message, 'HTTP 502');
    await time.pass(250);
    await assert.rejects(connected, { code: 4501 });
    assert.equal(it.state, 'stopped');
  });
});
