// A fake clock, a fake socket and the frames of a node.
import { mock } from 'node:test';
import { Skylark } from '../../dist/esm/index.js';

/** Lets all promises go on. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Starts the fake clock. `random` is the value of Math.random. */
export function fakeTime(random = 0.5) {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000_000_000 });
  mock.method(Math, 'random', () => random);
  return {
    /** Moves the clock. */
    async pass(milliseconds) {
      mock.timers.tick(milliseconds);
      await settle();
    },
    end: () => mock.reset(),
  };
}

/** A transport whose sockets the test opens, feeds and closes. */
export class FakeNet {
  sockets = [];
  transport = (url, events) => {
    const socket = { url, events, sent: [], isClosed: false };
    socket.send = (text) => socket.sent.push(JSON.parse(text));
    socket.close = () => (socket.isClosed = true);
    this.sockets.push(socket);
    return socket;
  };

  /** The newest socket. */
  get last() {
    return this.sockets.at(-1);
  }

  /** Requests that the newest socket got: key, data and ref. */
  requests(socket = this.last) {
    return socket.sent.filter((frame) => frame.type === 3).map((frame) => JSON.parse(frame.content));
  }

  /** Requests with this key. */
  asked(key, socket = this.last) {
    return this.requests(socket).filter((request) => request.key === key);
  }

  send(type, body, socket = this.last) {
    socket.events.received(JSON.stringify({ type, content: body && JSON.stringify(body) }));
  }

  /** Answers a request. */
  answer(request, data = {}, code = 200, message = '') {
    this.send(4, { key: request.key, code: `${code}`, message, timestamp: Date.now(), data, ref: request.ref });
  }

  /** Sends a reply that no request asked for. */
  tell(key, data = {}, code = 200, message = '') {
    this.send(4, { key, code: `${code}`, message, timestamp: Date.now(), data });
  }

  message(fields) {
    this.send(2, { id: 1, action: 'chat', content: { text: 'hi' }, sender: 'bob', ...fields });
  }

  drop(code = 1006, reason = '') {
    this.last.events.closed(code, reason);
  }
}

export const RESUME = '[["u",true,"aaaaaaaa",0,0,0],["all",true,"bbbbbbbb",0,0,0]]';

/** A client with its net and the log of its events. */
export function client(options = {}) {
  const net = new FakeNet();
  const it = new Skylark('wss://im.example/ws', { token: () => 't', transport: net.transport, ...options });
  const log = [];
  for (const event of ['state', 'bound', 'gap', 'recovered', 'joined', 'left', 'kicked', 'replaced', 'stop', 'error']) {
    it.on(event, (value) => log.push([event, value]));
  }
  it.on('message', (value) => log.push(['message', value]));
  return { it, net, log };
}

/** Opens the newest socket and binds it. */
export async function bind(net, data = {}) {
  await settle();
  net.last.events.opened();
  net.answer(net.asked('client_bind')[0], { uid: 'ann', cid: '7', sid: 'n1', resume: RESUME, ...data });
  await settle();
}

/** A client that is online. */
export async function online(options, data) {
  const made = client(options);
  made.connected = made.it.connect();
  made.connected.catch(() => {});
  await bind(made.net, data);
  return made;
}
