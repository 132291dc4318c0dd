/** Positions in streams, and their storage. */

import type { Position, PositionStore, Stream } from './types.js';

/** Streams that the node accepts in one `resume`. */
const MOST = 128;

interface Kept extends Position {
  /** True if a message that is on its way may be at or below the position. */
  _isLoose?: boolean;
}

/** Positions by stream: `u` is the user's own, then `all` and `r:ROOM`. The newest entry is the last. */
export class Positions {
  private _map = new Map<string, Kept>();
  private _timer: unknown;
  /** The user that the positions belong to. */
  _uid?: string;

  constructor(
    private _store: PositionStore | undefined,
    private _failed: (error: Error) => void,
  ) {
    if (!_store) return;
    try {
      const saved = JSON.parse(_store.load() || '{}');
      this._uid = saved.uid;
      for (const [stream, epoch, offset, id] of saved.positions || []) {
        if (/^[0-9a-z]{8}$/.test(epoch) && offset >= 0) this._map.set(stream, { epoch, offset, id });
      }
    } catch (error) {
      _failed(error as Error);
    }
  }

  _get(stream: string): Position | undefined {
    return this._map.get(stream);
  }

  /** Forgets a stream. */
  _forget(stream: string): void {
    if (this._map.delete(stream)) this._changed();
  }

  /** Replaces a position. An empty epoch means that the node does not know it. */
  _set(stream: string, position: Kept): void {
    this._map.delete(stream);
    if (position.epoch) this._map.set(stream, position);
    for (const oldest of this._map.keys()) {
      if (this._map.size <= MOST) break;
      if (oldest[1] == ':') this._map.delete(oldest);
    }
    this._changed();
  }

  /** Notes the position of a message. Returns false if the message was received before. */
  _advance(stream: string, position: Position): boolean {
    const last = this._map.get(stream);
    if (last && !last._isLoose && last.epoch == position.epoch && position.offset <= last.offset) return false;
    this._set(stream, position);
    return true;
  }

  /** Gives the positions to a user. Those of another user are forgotten. */
  _belongTo(uid: string): void {
    if (this._uid == uid) return;
    if (this._uid !== undefined) this._map.clear();
    this._uid = uid;
    this._changed();
  }

  /** The entries of a resume: user, everyone, and rooms. The node tells which of them the connection is in. */
  _resume(): string {
    const rooms = [...this._map.keys()].filter((name) => name[1] == ':');
    return JSON.stringify(['u', 'all', ...rooms.slice(2 - MOST)].map((name) => entry(name, this._map.get(name))));
  }

  /** Writes the positions to the store. */
  _flush(): void {
    clearTimeout(this._timer as number);
    if (!this._timer) return;
    this._timer = 0;
    const positions = [...this._map].map(([name, position]) => entry(name, position));
    try {
      this._store!.save(JSON.stringify({ uid: this._uid, positions }));
    } catch (error) {
      this._failed(error as Error);
    }
  }

  /** A burst of messages makes one write, after the listeners ran. */
  private _changed(): void {
    if (this._store && !this._timer) this._timer = setTimeout(() => this._flush(), 0);
  }
}

/** Stream with position, as the protocol writes it. */
function entry(name: string, position?: Position): unknown[] {
  return position ? [name, position.epoch, position.offset, position.id] : [name];
}

/** The name of a stream in the protocol. */
export function nameOf(stream: Stream): string {
  return 'room' in stream ? 'r:' + stream.room : 'all' in stream ? 'all' : 'u';
}

/** The stream of a name in the protocol. */
export function streamOf(name: string, uid: string): Stream {
  return name == 'all' ? { all: true } : name[1] == ':' ? { room: name.slice(2) } : { user: uid };
}

/**
 * Keeps positions in the browser.
 *
 * @param key Key of the entry. Use one for each user of a browser.
 * @param storage Default `localStorage`. With `sessionStorage` each tab has its own positions.
 */
export function localPositions(key = 'skylark', storage?: Storage): PositionStore {
  const place = () => storage || localStorage;
  return { load: () => place().getItem(key), save: (text) => place().setItem(key, text) };
}
