/** A room that the client joins again after each reconnect. */

import { Emitter } from './emitter.js';
import { SkylarkError } from './errors.js';
import { refusal } from './requests.js';
import type { JoinOptions, Published, PublishOptions, Reply, RoomEvents } from './types.js';
import { texts } from './wire.js';

/** What a room needs of its client. @internal */
export interface RoomHost {
  /** Sends a request if the client is online. */
  _tell(key: string, data: Record<string, string>, done: (reply: Reply) => void): boolean;
  publish(to: { room: string }, content: unknown, options?: PublishOptions): Promise<Published>;
  /** The position as the text of `since`. With `forget`, the position of an earlier page is forgotten. */
  _since(stream: string, forget: boolean): string;
  /** Takes the result of a replay. */
  _resumed(reply: Reply, isBack: boolean): void;
}

/** A room. `client.room(name)` returns the same object for the same name. */
export class Room extends Emitter<RoomEvents> {
  /** True while the connection is in the room. */
  joined = false;
  private _users = 0;
  private _options: JoinOptions = {};
  /** The join that waits for its answer. */
  private _asked?: object;
  private _isNew = true;
  private _waiting: [() => void, (error: SkylarkError) => void][] = [];

  /** @internal */
  constructor(
    readonly name: string,
    private _host: RoomHost,
  ) {
    super();
  }

  /**
   * Joins the room, and joins it again after each reconnect until as many calls of `leave`. Resolves in the
   * room, which takes until the client is online. Rejects if the node refuses.
   */
  join(options: JoinOptions = {}): Promise<void> {
    if (!this._users++) this._options = options;
    if (this.joined) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this._waiting.push([resolve, reject]);
      this._ask();
    });
  }

  /** Takes one `join` back. The last call leaves the room. */
  async leave(): Promise<void> {
    if (!this._users || --this._users) return;
    this._asked = undefined;
    this._end(new SkylarkError('stopped', this.name + ': left'));
    await new Promise<void>((resolve) => {
      const isSent = this._host._tell('room_leave', { room: this.name }, () => resolve());
      if (!isSent) resolve();
      this._left('left');
    });
  }

  /** Publishes to the room; see `client.publish`. */
  publish(content: unknown, options?: PublishOptions): Promise<Published> {
    return this._host.publish({ room: this.name }, content, options);
  }

  /** Sends the join if the client is online. @internal */
  _ask(): void {
    if (this._asked || this.joined || !this._users) return;
    const { latest, data } = this._options;
    const since = this._host._since('r:' + this.name, !!latest && this._isNew);
    const fields = texts({ ...data, room: this.name, since, latest: latest ? 1 : null });
    const asked = {};
    const isSent = this._host._tell('room_join', fields, (reply) => {
      // The room was left, and maybe joined again, before the answer.
      if (this._asked != asked) return;
      this._asked = undefined;
      if (reply.code == 200) {
        this._host._resumed(reply, !this._isNew);
        this._isNew = false;
        this._entered();
      } else this._refused(reply);
    });
    if (isSent) this._asked = asked;
  }

  /** Notes that the connection is in the room. @internal */
  _entered(): void {
    for (const [resolve] of this._waiting.splice(0)) resolve();
    if (this.joined) return;
    this.joined = true;
    this._emit('joined', undefined);
  }

  /** Notes that the node removed the connection from the room: it is not joined again. @internal */
  _removed(reason: string): void {
    this._users = 0;
    this._left(reason);
  }

  /** Notes the end of the connection. @internal */
  _lost(): void {
    this.joined = false;
    this._asked = undefined;
  }

  /** Ends all promises of `join`. @internal */
  _end(error: SkylarkError): boolean {
    const waiting = this._waiting.splice(0);
    for (const [, reject] of waiting) reject(error);
    return waiting.length > 0;
  }

  private _left(reason: string): void {
    if (!this.joined) return;
    this.joined = false;
    this._emit('left', { reason });
  }

  private _refused(reply: Reply): void {
    const error = refusal(reply, this.name);
    // After a failure of the node the next connection tries again, unless a caller of `join` is told.
    const isTold = this._end(error);
    if (isTold || reply.code < 500) this._users = 0;
    if (!isTold) this._emit('error', error);
  }
}
