// A real node as a process, a proxy whose connections a test cuts, and tokens.
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { Skylark, web } from '../../dist/esm/index.js';

export const ROOT = resolve(fileURLToPath(import.meta.url), '../../../../..');
/** The program: SKYLARK, or the one that cargo built for the tests. */
export const PROGRAM = process.env.SKYLARK || join(process.env.CARGO_TARGET_DIR || join(ROOT, 'target'), 'debug/skylark');
const SECRET = 'skylark-development-secret-not-for-production';
/** Time for an event of a busy machine, in milliseconds. */
const PATIENCE = 20_000;

/** A port that is free now. */
export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A running node. `start` again after `kill` runs it on the same port. */
export class Node {
  static running = new Set();

  constructor(port, settings) {
    this.port = port;
    this.folder = mkdtempSync(join(tmpdir(), 'skylark-js-'));
    const { node, ...others } = settings || {};
    const config = {
      node: { id: `n${port}`, state: join(this.folder, 'state'), address: `127.0.0.1:${port}`, ...node },
      listeners: [{ address: `127.0.0.1:${port}`, serves: ['ws', 'api', 'metrics'], origins: ['loopback'] }],
      clients: { publish: true, open_rooms: ['*'] },
      limits: { connections_per_ip: 0, connects_per_ip: 0 },
      plugins: { dir: join(ROOT, 'plugins/dist'), cache: join(tmpdir(), `skylark-js-cache-${process.getuid()}`) },
      drain: { wait: '0s' },
      ...others,
    };
    this.config = join(this.folder, 'skylark.yaml');
    // JSON is YAML.
    writeFileSync(this.config, JSON.stringify(config));
  }

  static async start(settings, port) {
    const node = new Node(port || (await freePort()), settings);
    await node.start();
    return node;
  }

  get url() {
    return `ws://127.0.0.1:${this.port}/ws`;
  }

  async start() {
    const child = spawn(PROGRAM, ['serve', '--config', this.config], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.child = child;
    this.exited = once(child, 'exit');
    Node.running.add(this);
    let log = '';
    child.stderr.on('data', (data) => (log = (log + data).slice(-20_000)));
    for await (const line of createInterface({ input: child.stdout })) {
      log += `${line}\n`;
      if (line === 'ready') return child.stdout.resume();
    }
    throw new Error(`${PROGRAM} did not become ready:\n${log}`);
  }

  /** Ends the process and waits for its exit. */
  async stop(signal = 'SIGKILL') {
    this.child.kill(signal);
    await this.exited;
    Node.running.delete(this);
  }

  get(path) {
    return this.post(path);
  }

  /** Sends a request, a GET without a body, and returns the data of the answer. */
  async post(path, body) {
    const method = body ? 'POST' : 'GET';
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(`http://127.0.0.1:${this.port}${path}`, { method, body: body && JSON.stringify(body), headers });
    const { code, message, data } = await answer.json();
    if (code !== 200) throw new Error(`${path}: ${code} ${message}`);
    return data;
  }

  push(uid, text) {
    return this.post('/send', { receiver: uid, action: 'chat', content: { text } });
  }

  /** Ends all nodes of this process. */
  static async stopAll() {
    for (const node of [...Node.running]) {
      await node.stop();
      rmSync(node.folder, { recursive: true, force: true });
    }
  }
}

/** A token of the sample plugin token-auth. `life` in seconds. */
export function token(uid, life = 3600, claims = {}) {
  const text = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${text({ alg: 'HS256', typ: 'JWT', kid: 'dev' })}.${text({ sub: uid, exp: Math.floor(Date.now() / 1000) + life, ...claims })}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}

const clients = new Set();

/** A client of this node with the log of its events. */
export function client(url, uid, options = {}) {
  const it = new Skylark(url, { token: () => token(uid), transport: web(WebSocket), ...options });
  clients.add(it);
  const log = [];
  for (const event of ['state', 'gap', 'recovered', 'joined', 'left', 'kicked', 'stop', 'error', 'message']) {
    it.on(event, (value) => log.push({ event, value }));
  }
  const texts = () => log.filter(({ event }) => event === 'message').map(({ value }) => value.content.text);
  return { it, log, texts };
}

/** A client that is online. */
export async function online(url, uid, options) {
  const made = client(url, uid, options);
  await made.it.connect();
  return made;
}

export function closeAll() {
  for (const it of clients) it.close();
  clients.clear();
}

/** Waits until `holds` returns something true. */
export async function until(what, holds) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const value = await holds();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${PATIENCE} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A proxy in front of a port: a test cuts, stalls and refuses its connections. */
export class Proxy {
  pairs = new Set();
  isOpen = true;

  static async start(port) {
    const proxy = new Proxy();
    proxy.server = net.createServer((near) => {
      if (!proxy.isOpen) return near.destroy();
      const far = net.connect(port, '127.0.0.1');
      const pair = [near, far];
      proxy.pairs.add(pair);
      near.pipe(far);
      far.pipe(near);
      const end = () => (pair.forEach((socket) => socket.destroy()), proxy.pairs.delete(pair));
      for (const socket of pair) socket.on('error', end).on('close', end);
    });
    proxy.server.listen(0, '127.0.0.1');
    await once(proxy.server, 'listening');
    proxy.url = `ws://127.0.0.1:${proxy.server.address().port}/ws`;
    return proxy;
  }

  /** Cuts every connection, and refuses new ones until `isOpen` is true again. */
  cut() {
    this.isOpen = false;
    for (const pair of this.pairs) pair.forEach((socket) => socket.destroy());
  }

  /** Reads nothing more from the node. */
  stall() {
    for (const [near, far] of this.pairs) {
      far.unpipe(near);
      far.pause();
    }
  }

  stop() {
    this.cut();
    this.server.close();
  }
}
