/** Requests that wait for a connection or for their answer. Does not know sockets and states. */

import { SkylarkError } from './errors.js';
import type { Reply, RequestOptions } from './types.js';
import { SENT, encode, replyOf } from './wire.js';

/** The error of an answer that is no success. */
export function refusal(reply: Reply, name = reply.key): SkylarkError {
  return new SkylarkError(reply.code, `${name}: ${reply.code} ${reply.message}`, reply);
}

interface Entry {
  key: string;
  data: Record<string, string>;
  retry?: boolean;
  ref: number;
  /** Ends the request. The entry keeps its place among the answers. */
  end(error?: unknown, reply?: Reply): void;
  _isEnded?: boolean;
}

/** The requests of one client. */
export class Requests {
  private _ref = 0;
  private _queue: Entry[] = [];
  /** Sent and not answered, in order. An entry whose time is up stays until its answer. */
  private _sent: Entry[] = [];
  private _echoes = false;
  /** The reason why the client is stopped. */
  _stopped?: string;
  private _isOnline = false;

  constructor(
    private _limit: number,
    private _timeout: number,
    private _write: (text: string) => void,
  ) {}

  /** Sends a request, or queues it until the client is online. Rejects if the answer is no success. */
  _ask(key: string, data: Record<string, string>, options: RequestOptions = {}): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const { timeout = this._timeout, signal, retry } = options;
      if (signal?.aborted) return reject(signal.reason);
      if (this._stopped) return reject(new SkylarkError('stopped', key + ': ' + this._stopped));
      if (!this._isOnline && this._queue.length >= this._limit) {
        return reject(new SkylarkError('full', key + ': queue is full'));
      }
      const entry: Entry = { key, data, retry, ref: ++this._ref, end };
      const timer = setTimeout(() => end(new SkylarkError('timeout', key + ': no answer in time')), timeout);
      const abort = () => end(signal!.reason);
      signal?.addEventListener('abort', abort);
      const queue = this._queue;
      function end(error?: unknown, reply?: Reply): void {
        if (entry._isEnded) return;
        entry._isEnded = true;
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        const at = queue.indexOf(entry);
        if (at >= 0) queue.splice(at, 1);
        error ? reject(error) : resolve(reply!);
      }
      this._isOnline ? this._send(entry) : queue.push(entry);
    });
  }

  /** Sends a request of the client itself, past the queue. It ends with the connection. */
  _tell(key: string, data: Record<string, string>, done: (reply: Reply) => void): void {
    const end = (error?: unknown, reply = (error as SkylarkError).reply) => reply && done(reply);
    this._send({ key, data, ref: ++this._ref, end });
  }

  /** Sends what waited for the connection. */
  _online(): void {
    this._isOnline = true;
    for (const entry of this._queue.splice(0)) this._send(entry);
  }

  /** Ends the connection: requests that may be repeated wait for the next one. */
  _lost(): void {
    this._isOnline = this._echoes = false;
    for (const entry of this._sent.splice(0).reverse()) {
      if (entry._isEnded) continue;
      if (entry.retry) this._queue.unshift(entry);
      else entry.end(new SkylarkError('lost', entry.key + ': connection lost'));
    }
  }

  /** Rejects everything that waits, and new requests. */
  _stop(reason: string): void {
    this._stopped = reason;
    for (const entry of [...this._queue]) entry.end(new SkylarkError('stopped', entry.key + ': ' + reason));
  }

  /** Gives a reply to its request. Returns the reply if no request asked for it. */
  _answer(body: any): Reply | undefined {
    const reply = replyOf(body);
    let at = 0;
    if (body.ref) {
      this._echoes = true;
      at = this._sent.findIndex((entry) => entry.ref == body.ref);
      // Not the answer to a request of this connection.
      if (at < 0) return;
    } else {
      const first = this._sent[0];
      // A node without `ref` answers in order.
      if (this._echoes || first?.key != reply.key) return reply;
    }
    const [entry] = this._sent.splice(at, 1);
    entry.end(reply.code > 199 && reply.code < 300 ? 0 : refusal(reply), reply);
    return;
  }

  private _send(entry: Entry): void {
    this._sent.push(entry);
    const { key, data, ref } = entry;
    this._write(encode(SENT, { key, timestamp: Date.now(), data, ref }));
  }
}
