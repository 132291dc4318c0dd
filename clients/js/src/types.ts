/** Public types of the client. */

import type { SkylarkError } from './errors.js';
import type { Transport } from './transport.js';

/**
 * State of the client: `idle` before `connect`, `connecting` during a dial and its bind, `online`,
 * `waiting` between two dials, `stopped` after `close` or a refusal.
 */
export type State = 'idle' | 'connecting' | 'online' | 'waiting' | 'stopped';

/** Values of a request. Numbers and booleans become their text, objects their JSON text. */
export type Data = Record<string, unknown>;

/** A stream of messages: one user, one room, or everyone. */
export type Stream = { user: string } | { room: string } | { all: true };

/** Position in a stream. */
export interface Position {
  /** Life of the stream. */
  epoch: string;
  /** Number of the message in its stream. */
  offset: number;
  /** Id of the message; a text beyond 2^53 − 1. */
  id: number | string;
}

/** Storage of positions over a reload of the page. */
export interface PositionStore {
  /** Returns the text that `save` stored last, or nothing. */
  load(): string | null | undefined;
  /** Stores a text. */
  save(text: string): void;
}

/** An answer of the node. */
export interface Reply {
  key: string;
  /** 200 = success. */
  code: number;
  /** Readable explanation. */
  message: string;
  /** The node's clock, milliseconds since 1970. */
  timestamp: number;
  data: Record<string, string>;
}

/** A message from a user, a back end or a plugin. */
export interface Message {
  /** Id; a text beyond 2^53 − 1. */
  id: number | string;
  /** Kind of the message, such as `chat`. */
  action: string;
  /** The body. */
  content: Record<string, string>;
  /** The value that `publish` got: the object in the key `json` of the body, or else the body itself. */
  json<T = unknown>(): T;
  sender: string;
  receiver: string;
  title: string;
  /** URL of a picture. */
  image: string;
  /** Data beside the body. */
  extra: Record<string, string>;
  /** The stream that the message belongs to. */
  stream: Stream;
  /** Position in the stream, if the node keeps the message. */
  position?: Position;
  /** Milliseconds since 1970. */
  sentAt: number;
  /** Tells the node that the message was processed. Only with `acks: 'manual'`; otherwise the client does it. */
  ack(): void;
}

/** The bind of this connection to its user. */
export interface Bound {
  uid: string;
  /** Rooms of the connection, as far as the node tells them. */
  rooms: string[];
  /** True if clients may publish; undefined if the node does not tell it. */
  publish?: boolean;
  /** All fields of the answer, such as `cid` (the connection), `sid` (the node) and `expires`. */
  data: Record<string, string>;
}

/** Events of the client. */
export interface Events {
  state: State;
  /** The connection has a user. Occurs again after each reconnect, and when a plugin changes the user. */
  bound: Bound;
  message: Message;
  /** Messages may be lost, of one stream or of all. Load the state from your back end. */
  gap: { stream?: Stream; reason: string };
  /** Result of a reconnect for one stream. With `false`, load the state from your back end. */
  recovered: { stream: Stream; recovered: boolean; reason?: string };
  /** The connection is in this room now. */
  joined: string;
  /** The connection is no longer in this room. */
  left: { room: string; reason: string };
  /** The back end closed the connection. `stop` follows. */
  kicked: SkylarkError;
  /** Another device of the user took over. `stop` follows. */
  replaced: SkylarkError;
  /** The client stays away: its next dial would fail as well. */
  stop: SkylarkError;
  /** A failure that no promise reports, such as a `token()` that failed. */
  error: Error;
}

/** Events of a room. */
export interface RoomEvents {
  message: Message;
  /** The connection is in the room. */
  joined: void;
  /** The connection left the room, or was removed from it. */
  left: { reason: string };
  gap: { reason: string };
  recovered: { recovered: boolean; reason?: string };
  /** The room was refused when the client joined it again after a reconnect. */
  error: SkylarkError;
}

/** Options of a request. */
export interface RequestOptions {
  /** Time for the answer in milliseconds, including the wait for a connection; default 10 000. */
  timeout?: number;
  signal?: AbortSignal;
  /** Sends the request again after a lost connection. Only for requests that may be executed twice. */
  retry?: boolean;
}

/** Options of a publish. */
export interface PublishOptions extends RequestOptions {
  /**
   * Idempotency key, such as `crypto.randomUUID()`: the message is sent again after a lost connection, and
   * published once.
   */
  key?: string;
  /** Kind of the message; default `chat`. */
  action?: string;
  title?: string;
  /** URL of a picture. */
  image?: string;
  /** Data beside the body. */
  extra?: Data;
}

/** Result of a publish. */
export interface Published {
  id: number | string;
  /** Connections that the message was queued for, if the node counted them. */
  delivered?: number;
  /** Users without a connection. */
  offline: string[];
  /** True if a message with the same key was published before. */
  duplicate: boolean;
}

/** Options of a join. */
export interface JoinOptions {
  /** Asks for the newest message of the room instead of all that were missed. */
  latest?: boolean;
  /** Fields for the access plugin of the room. */
  data?: Data;
}

/** Options of the client. */
export interface Options {
  /**
   * The token, or a function that gets a new one. Use a function for tokens that expire: the client calls it
   * before the first dial, before the token ends, and once after a refusal.
   */
  token: string | (() => string | Promise<string>);
  /** Name of the device. */
  device?: string;
  /** Kind of the client, such as `web`. */
  channel?: string;
  /** More fields of `client_bind`, such as `appVersion`. */
  info?: Data;
  /** Storage of positions; default: the memory of the client. */
  store?: PositionStore;
  /** `manual`: the application calls `message.ack()`. Default `auto`. */
  acks?: 'auto' | 'manual';
  /** Requests that may wait for a connection; default 100. */
  queue?: number;
  /** Default time for an answer in milliseconds; default 10 000. */
  timeout?: number;
  /** Default: the WebSocket of the platform. */
  transport?: Transport;
}
