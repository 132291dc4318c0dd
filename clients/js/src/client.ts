/** The client: states, binds, reconnects, and the events of a connection. */

import { comesBack } from './close.js';
import { KICKED, REPLACED, TOKEN_EXPIRED, UNAUTHORIZED } from './codes.js';
import { Emitter } from './emitter.js';
import { SkylarkError } from './errors.js';
import { Positions, nameOf, streamOf } from './positions.js';
import { Requests, refusal } from './requests.js';
import { Room } from './room.js';
import { type Socket, web } from './transport.js';
import type { Bound, Data, Events, Message, Options, Position, Published, PublishOptions } from './types.js';
import type { Reply, RequestOptions, State, Stream } from './types.js';
import { addressed, isUnauthorized, listen, number, parsed, positionOf, roomName } from './values.js';
import { MESSAGE, PING, PONG, REPLY, contentOf, decode, encode, texts } from './wire.js';

/** Longest wait between two dials, and the first one, in milliseconds. */
const LONGEST = 30_000;
const FIRST = 500;
/** Time online after which the waits begin at `FIRST` again. */
const STEADY = 30_000;
/** Time for a dial and its bind. */
const DIAL = 15_000;
/** Time for a sign of life after `wake`. */
const PROBE = 5_000;
/** Fields that a message may lack. */
const EMPTY = { sender: '', receiver: '', title: '', image: '', extra: {} };
/** Longest timer of JavaScript. */
const TIMER = 2 ** 31 - 1;

/** A connection to a node that comes back by itself. */
export class Skylark extends Emitter<Events> {
  /** The present state. */
  state: State = 'idle';
  /** The bind of the present or last connection. */
  bound?: Bound;

  private _requests: Requests;
  private _positions: Positions;
  private _rooms = new Map<string, Room>();
  private _connects: [() => void, (error: Error) => void][] = [];

  private _token?: string;
  /** The token's end in milliseconds since 1970, by the clock of this machine. */
  private _expires = Infinity;
  /** True if the last token was refused. */
  private _isDenied = false;

  /** Counts the dials: events of an older socket are ignored. */
  private _dial = 0;
  private _socket?: Socket;
  /** Address to dial once instead of the first one. */
  private _next?: string;
  private _tries = 0;
  private _onlineAt = 0;
  /** The former connection of this page. */
  private _cid?: string;
  /** Explanation that came before a close. */
  private _why?: string;
  private _kicked = false;

  /** Timer of the state: dial time or wait. */
  private _timer: unknown;
  private _refreshTimer: unknown;
  private _silenceTimer: unknown;
  private _heardAt = 0;
  /** Time without a sign of life that ends a connection, and the shorter one after `wake`. */
  private _silence = 60_000;
  private _patience = 60_000;
  private _acks = new Map<string, Position>();
  private _ackTimer: unknown;
  private _unlisten?: AbortController;

  /**
   * @param url Address of the node, such as `wss://im.example/ws`.
   */
  constructor(
    readonly url: string,
    private _options: Options,
  ) {
    super();
    const { queue = 100, timeout = 10_000, store } = _options;
    this._requests = new Requests(queue, timeout, (text) => this._socket!.send(text));
    this._positions = new Positions(store, (error) => this._emit('error', error));
  }

  /** The user, once bound. */
  get uid(): string | undefined {
    return this.bound?.uid;
  }

  /** Connects. Resolves when online; rejects when the client must stay away. */
  connect(): Promise<void> {
    if (this.state == 'online') return Promise.resolve();
    return new Promise((resolve, reject) => {
      this._connects.push([resolve, reject]);
      if (this.state == 'waiting') this.wake();
      if (this.state == 'idle' || this.state == 'stopped') {
        this._requests._stopped = undefined;
        this._tries = 0;
        this._isDenied = false;
        this._unlisten = listen(() => this.wake(), () => this._positions._flush());
        this._open();
      }
    });
  }

  /** Closes the connection and stops. `connect` starts again. */
  close(): void {
    this._stop(new SkylarkError('stopped', 'closed'), true);
  }

  /** Tells the client that the network or the page is back: it dials at once, or tests its connection. */
  wake(): void {
    if (this.state == 'waiting') this._open();
    if (this.state != 'online') return;
    const silent = Date.now() - this._heardAt;
    this._patience = Math.min(this._patience, silent + PROBE);
    // Any answer is a sign of life.
    if (silent < this._patience) this._tell('ping', {});
    this._watch();
  }

  /**
   * Sends a request and resolves with the answer. Waits while the client is not online. Rejects with a
   * `SkylarkError` if the answer is no success.
   */
  request(key: string, data?: Data, options?: RequestOptions): Promise<Reply> {
    return this._requests._ask(key, texts(data), options);
  }

  /** Publishes a message to a user or to a room that the client joined. A text is sent as `{text}`. */
  async publish(to: Stream, content: unknown, options: PublishOptions = {}): Promise<Published> {
    const { key, action, title, image, extra } = options;
    const fields = { to: 'room' in to ? 'room:' + to.room : 'user:' + (to as { user: string }).user };
    const data = texts({ ...fields, content: contentOf(content), key, action, title, image, extra: extra && texts(extra) });
    const reply = await this._requests._ask('message', data, { ...options, retry: options.retry || !!key });
    const { id, delivered, offline, duplicate } = reply.data;
    return {
      id: number(id),
      delivered: delivered ? +delivered : undefined,
      offline: offline ? offline.split(',') : [],
      duplicate: duplicate == 'true',
    };
  }

  /** The room of this name. Call `join` to get its messages. */
  room(name: string): Room {
    const room = this._rooms.get(name) || new Room(name, this);
    this._rooms.set(name, room);
    return room;
  }

  /** The position of a stream. Read it before you load the state from your back end. */
  position(stream: Stream): Position | undefined {
    return this._positions._get(nameOf(stream));
  }

  // --- dialing

  private _become(state: State): void {
    if (this.state == state) return;
    this.state = state;
    this._emit('state', state);
  }

  /** Ends the present socket, its timers and its answers. */
  private _drop(): void {
    for (const timer of [this._timer, this._refreshTimer, this._silenceTimer, this._ackTimer]) {
      clearTimeout(timer as number);
    }
    this._ackTimer = 0;
    this._dial++;
    try {
      this._socket?.close(1000, '');
    } catch {
      // The socket was not open yet.
    }
    this._socket = undefined;
    this._requests._lost();
    for (const room of this._rooms.values()) room._lost();
  }

  private async _open(): Promise<void> {
    this._drop();
    const dial = this._dial;
    const url = this._next ? addressed(this.url, this._next) : this.url;
    this._next = this._why = undefined;
    this._kicked = false;
    this._become('connecting');
    if (dial != this._dial) return;
    this._timer = setTimeout(() => this._lost(1006, 'no answer in time'), DIAL);
    const ifLast = <Values extends unknown[]>(act: (...values: Values) => void) => (...values: Values) =>
      void (dial == this._dial && act(...values));
    const events = {
      opened: ifLast(() => this._bind()),
      received: ifLast((text: string) => this._received(text)),
      closed: ifLast((code: number, reason: string) => this._lost(code, reason)),
    };
    try {
      if (this._token === undefined || Date.now() >= this._expires) this._token = await this._newToken();
    } catch (error) {
      if (dial != this._dial) return;
      this._emit('error', error as Error);
      if (dial == this._dial) this._lost(isUnauthorized(error) ? UNAUTHORIZED : 1006, (error as Error).message, true);
    }
    if (dial != this._dial) return;
    try {
      const transport = this._options.transport || web();
      this._socket = transport(url + (url.includes('?') ? '&' : '?') + 'dialect=yunque.json', events);
    } catch (error) {
      if (url != this.url) return this._lost(1006, (error as Error).message);
      this._stop(new SkylarkError('url', (error as Error).message));
    }
  }

  private async _newToken(): Promise<string> {
    const { token } = this._options;
    this._expires = Infinity;
    return typeof token == 'string' ? token : token();
  }

  /** The fields of a bind, without the token. */
  private _facts(): Data {
    const { device, channel, info } = this._options;
    return { ...info, deviceId: device, channel, events: '1' };
  }

  private _bind(): void {
    const data = texts({ ...this._facts(), token: this._token, cid: this._cid, resume: this._positions._resume() });
    this._write('client_bind', data, (reply) => {
      if (reply.code == 200) this._online(reply);
      else if (reply.code >= 500) this._lost(1006, reply.message);
      else this._stop(refusal(reply));
    });
  }

  private _online(reply: Reply): void {
    const isBack = !!this._cid;
    clearTimeout(this._timer as number);
    this._isDenied = false;
    this._onlineAt = Date.now();
    this._silence = this._patience = 2400 * (+reply.data.heartbeat || 25);
    this._watch();
    this._setBound(reply);
    this._schedule(reply);
    const dial = this._dial;
    this._become('online');
    if (dial != this._dial) return;
    this._emit('bound', this.bound!);
    this._resumed(reply, isBack);
    if (dial != this._dial) return;
    // A node without a history knows no positions.
    if (this._positions._get('u')) this._locate(this.bound!.rooms.map(roomName));
    this._joinRooms();
    this._requests._online();
    for (const [resolve] of this._connects.splice(0)) resolve();
  }

  /** Takes user, connection and rooms of a bind. */
  private _setBound({ data }: Reply): void {
    const rooms = parsed(data.rooms);
    this.bound = { uid: data.uid, rooms, publish: data.publish ? data.publish == 'true' : undefined, data };
    this._cid = data.cid;
    this._positions._belongTo(data.uid);
    for (const name of rooms) this._rooms.get(name)?._entered();
  }

  /** Asks for the positions of streams whose messages come without a request of the client. */
  private _locate(streams: string[]): void {
    const unknown = streams.filter((name) => !this._positions._get(name));
    if (!unknown.length) return;
    const data = texts({ ...this._facts(), resume: unknown.map((name) => [name]) });
    this._write('client_bind', data, ({ data }) => {
      for (const [name, , epoch, offset, id] of parsed(data.resume)) {
        // A message that is on its way may be at or below this position.
        if (!this._positions._get(name)) this._positions._set(name, { epoch, offset, id, _isLoose: true });
      }
    });
  }

  private _joinRooms(): void {
    for (const room of this._rooms.values()) room._ask();
  }

  /** Goes on after the end of a connection or a dial: waits for the next dial, or stops. */
  private _lost(code: number, reason: string, isFinal?: boolean): void {
    const wasOnline = this.state == 'online';
    this._drop();
    if (wasOnline && Date.now() - this._onlineAt >= STEADY) this._tries = 0;
    if (this._kicked && code < 4500) code = KICKED;
    const [words, next] = reason.split('; next ');
    const error = new SkylarkError(code, this._why || words || 'closed with ' + code);
    let isOver = !comesBack(code);
    if (code == TOKEN_EXPIRED || code == UNAUTHORIZED) {
      // A new token may help once.
      isOver = isFinal || typeof this._options.token == 'string' || (code == UNAUTHORIZED && this._isDenied);
      this._isDenied = code == UNAUTHORIZED;
      this._token = undefined;
    }
    if (isOver) return this._stop(error);
    this._next = next;
    const wait = Math.random() * (next ? FIRST : Math.min(LONGEST, FIRST * 2 ** this._tries++));
    this._timer = setTimeout(() => this._open(), wait);
    this._become('waiting');
  }

  private _stop(error: SkylarkError, isAsked?: boolean): void {
    this._drop();
    this._unlisten?.abort();
    this._token = undefined;
    this._positions._flush();
    this._become('stopped');
    this._requests._stop(error.message);
    for (const room of this._rooms.values()) room._end(error);
    for (const [, reject] of this._connects.splice(0)) reject(error);
    if (isAsked) return;
    if (error.code == KICKED || error.code == REPLACED) this._emit(error.code == KICKED ? 'kicked' : 'replaced', error);
    this._emit('stop', error);
  }

  // --- one connection

  private _watch(): void {
    clearTimeout(this._silenceTimer as number);
    const left = this._heardAt + this._patience - Date.now();
    if (left <= 0) this._lost(1006, 'node is silent');
    else this._silenceTimer = setTimeout(() => this._watch(), left);
  }

  /** Sends a request of the client itself. */
  private _write(key: string, data: Record<string, string>, done: (reply: Reply) => void): void {
    this._requests._tell(key, data, done);
  }

  /** Like `_write`, if the client is online. @internal */
  _tell(key: string, data: Record<string, string>, done: (reply: Reply) => void = () => {}): boolean {
    const isOnline = this.state == 'online';
    if (isOnline) this._write(key, data, done);
    return isOnline;
  }

  private _received(text: string): void {
    this._heardAt = Date.now();
    this._patience = this._silence;
    let frame;
    try {
      frame = decode(text);
    } catch {
      return this._lost(1006, 'bad frame');
    }
    const { type, body } = frame;
    if (type == PING) this._socket!.send(encode(PONG));
    if (type == MESSAGE) this._message(body);
    if (type == REPLY) {
      const reply = this._requests._answer(body);
      if (reply) this._unasked(reply);
    }
  }

  private _message(body: any): void {
    const { stream: name = 'u', offset, epoch, sendTime = 0, content = {}, ...fields } = body;
    if (fields.action == '999' && fields.sender == '0') {
      this._kicked = true;
      this._why = content.text;
      return;
    }
    const position: Position | undefined = offset && { epoch, offset: +offset, id: fields.id };
    if (position && !this._positions._advance(name, position)) return;
    const message: Message = {
      ...EMPTY,
      ...fields,
      content,
      stream: streamOf(name, this.uid!),
      position,
      sentAt: +sendTime,
      json: () => (content.json ? JSON.parse(content.json) : content),
      ack: () => position && this._ack(name, position),
    };
    this._emit('message', message);
    this._room(name)?._emit('message', message);
  }

  private _unasked({ key, data, message }: Reply): void {
    if (key == 'client_handshake') this._why = message;
    if (key == 'client_bind') this._rebound({ data } as Reply);
    if (key == 'replay_end') this._positions._advance(data.stream, positionOf(data));
    if (key == 'gap') {
      const { stream: name } = data;
      if (name) this._positions._set(name, positionOf(data));
      this._emit('gap', { stream: name ? streamOf(name, this.uid!) : undefined, reason: message });
      this._room(name)?._emit('gap', { reason: message });
    }
    const room = this._rooms.get(data.room);
    if (key == 'room_joined') {
      room?._entered();
      this._locate([roomName(data.room)]);
      this._emit('joined', data.room);
    }
    if (key == 'room_left') {
      room?._removed(message);
      this._emit('left', { room: data.room, reason: message });
    }
  }

  /** A plugin gave the connection to a user. The rooms of another user are left. */
  private _rebound(reply: Reply): void {
    const former = this.uid;
    if (this.state != 'online') return;
    if (former != reply.data.uid) for (const room of this._rooms.values()) room._lost();
    this._setBound(reply);
    this._emit('bound', this.bound!);
    this._locate(['u', 'all', ...this.bound!.rooms.map(roomName)]);
    this._joinRooms();
  }

  /** The wanted or joined room of a stream. */
  private _room(name = ''): Room | undefined {
    return name[1] == ':' ? this._rooms.get(name.slice(2)) : undefined;
  }

  // --- positions

  /** The position as the text of `since`. @internal */
  _since(name: string, forget: boolean): string {
    if (forget) this._positions._forget(name);
    const position = this._positions._get(name);
    return position ? [position.epoch, position.offset, position.id].join(':') : '';
  }

  /** Takes the result of a resume. `isBack`: the client had the stream before. @internal */
  _resumed({ data, key }: Reply, isBack: boolean): void {
    if (!data.resume && key == 'client_bind' && isBack) {
      // An older node replays nothing.
      for (const name of ['u', 'all']) this._recovered(name, false, 'off');
    }
    for (const [name, recovered, epoch, offset, id, count, reason] of parsed(data.resume)) {
      const had = this._positions._get(name);
      // The room is not joined yet, or was left: its position serves the next join.
      if (reason == 'not_joined') continue;
      this._room(name)?._entered();
      // The messages that follow move the position.
      if (!recovered || !count) this._positions._set(name, { epoch, offset, id });
      if (had || isBack) this._recovered(name, recovered, reason);
    }
  }

  private _recovered(name: string, recovered: boolean, reason?: string): void {
    this._emit('recovered', { stream: streamOf(name, this.uid!), recovered, reason });
    this._room(name)?._emit('recovered', { recovered, reason });
  }

  /** Acknowledges up to a position. One request a second covers all that came before. */
  private _ack(name: string, position: Position): void {
    // Rooms have no acknowledgements.
    if (this._options.acks != 'manual' || name[1] == ':') return;
    this._acks.set(name, position);
    this._ackTimer ||= setTimeout(() => {
      this._ackTimer = 0;
      for (const [stream, { epoch, offset }] of this._acks) {
        this._tell('client_ack', texts({ epoch, offset, stream: stream == 'u' ? null : stream, reply: 1 }));
      }
      this._acks.clear();
    }, 1000);
  }

  // --- token

  /** Plans a refresh after 80 % of the token's life. */
  private _schedule({ data, timestamp }: Reply): void {
    const life = +data.expires * 1000 - (timestamp || Date.now());
    if (!data.expires) return;
    this._expires = Date.now() + life;
    if (typeof this._options.token == 'string') return;
    clearTimeout(this._refreshTimer as number);
    this._refreshTimer = setTimeout(() => this._refresh(), Math.min(life * 0.8, TIMER));
  }

  private async _refresh(): Promise<void> {
    const dial = this._dial;
    const expires = this._expires;
    try {
      const token = await this._newToken();
      if (dial != this._dial) return;
      this._token = token;
      this._tell('client_refresh', { token }, (reply) => {
        if (reply.code == 200) return this._schedule(reply);
        this._emit('error', refusal(reply));
      });
    } catch (error) {
      if (dial != this._dial) return;
      this._expires = expires;
      this._emit('error', error as Error);
      if (isUnauthorized(error)) return this._lost(UNAUTHORIZED, (error as Error).message, true);
      // Again in a fifth of the rest; the end of the token closes the connection.
      const rest = Math.max(1000, (expires - Date.now()) / 5);
      this._refreshTimer = setTimeout(() => this._refresh(), rest);
    }
  }
}
