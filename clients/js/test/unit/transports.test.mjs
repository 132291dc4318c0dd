import assert from 'node:assert/strict';
import { describe, it as test } from 'node:test';
import { localPositions, task, web } from '../../dist/esm/index.js';

/** The events of a socket as a list. */
const recorder = () => {
  const log = [];
  const on = (name) => (...values) => log.push([name, ...values]);
  return { log, events: { opened: on('opened'), received: on('received'), closed: on('closed') } };
};

describe('web', () => {
  test('passes texts and the close on', () => {
    const made = [];
    class Fake {
      constructor(url) {
        made.push([this, url]);
      }
    }
    const { log, events } = recorder();
    web(Fake)('ws://h/ws', events);
    const [[socket, url]] = made;
    socket.onopen();
    socket.onmessage({ data: 'text' });
    socket.onmessage({ data: new ArrayBuffer(1) });
    socket.onerror();
    socket.onclose({ code: 4003, reason: 'restart' });
    assert.equal(url, 'ws://h/ws');
    assert.deepEqual(log, [['opened'], ['received', 'text'], ['closed', 4003, 'restart']]);
  });
});

describe('task', () => {
  const dial = () => {
    const made = { calls: [] };
    const { log, events } = recorder();
    const connect = (options) => {
      made.options = options;
      for (const name of ['Open', 'Message', 'Close', 'Error']) made[`on${name}`] = (listener) => (made[name] = listener);
      made.send = (options) => made.calls.push(['send', options]);
      made.close = (options) => made.calls.push(['close', options]);
      return made;
    };
    return { made, log, socket: task(connect)('ws://h/ws', events) };
  };

  test('asks for a task and no promise', () => {
    const { made } = dial();
    assert.equal(made.options.url, 'ws://h/ws');
    assert.equal(typeof made.options.complete, 'function');
  });

  test('sends and closes on the task', () => {
    const { made, socket } = dial();
    socket.send('x');
    socket.close(1000, '');
    assert.deepEqual(made.calls, [['send', { data: 'x' }], ['close', { code: 1000, reason: '' }]]);
  });

  test('passes texts on and ignores other data', () => {
    const { made, log } = dial();
    made.Open();
    made.Message({ data: 'text' });
    made.Message({ data: {} });
    made.Close({ code: 4503, reason: 'kicked' });
    assert.deepEqual(log, [['opened'], ['received', 'text'], ['closed', 4503, 'kicked']]);
  });

  test('error without a close is the end, once', () => {
    const { made, log } = dial();
    made.Error({});
    made.Close();
    made.options.fail({ errMsg: 'late' });
    assert.deepEqual(log, [['closed', 1006, '']]);
  });

  test('failed dial is the end', () => {
    const { made, log } = dial();
    made.options.fail({ errMsg: 'url not in domain list' });
    assert.deepEqual(log, [['closed', 1006, 'url not in domain list']]);
  });
});

test('localPositions uses its key and its storage', () => {
  const map = new Map();
  const storage = { getItem: (key) => map.get(key) ?? null, setItem: (key, text) => map.set(key, text) };
  const store = localPositions('k', storage);
  assert.equal(store.load(), null);
  store.save('x');
  assert.equal(store.load(), 'x');
  assert.deepEqual([...map], [['k', 'x']]);
});
