/** Errors of the client. */

import type { Reply } from './types.js';

/** Reasons of a request without an answer. */
export type Failure =
  /** No answer came in time. */
  | 'timeout'
  /** The connection was lost before the answer. The node may have executed the request. */
  | 'lost'
  /** The client is stopped, so the request was not sent. */
  | 'stopped'
  /** Too many requests wait for a connection. */
  | 'full'
  /** The platform refuses the address. */
  | 'url';

/** A request that failed, or a client that stopped. */
export class SkylarkError extends Error {
  /**
   * @param code The code of the node's answer such as `403`, a close code such as `4503`, or the reason
   *   that there is no answer.
   * @param message Readable explanation.
   * @param reply The answer of the node, if it gave one.
   */
  constructor(
    readonly code: number | Failure,
    message: string,
    readonly reply?: Reply,
  ) {
    super(message);
    this.name = 'SkylarkError';
  }
}

/** Thrown by `token()` when the user is signed out: the client stops and does not ask again. */
export class Unauthorized extends Error {
  constructor(message = 'no token: the user is signed out') {
    super(message);
    this.name = 'Unauthorized';
  }
}
