/** Client of the Skylark message gateway. */

export { Skylark } from './client.js';
export { comesBack } from './close.js';
export * as codes from './codes.js';
export { SkylarkError, Unauthorized } from './errors.js';
export type { Failure } from './errors.js';
export { localPositions } from './positions.js';
export type { Room } from './room.js';
export { task, web } from './transport.js';
export type { Socket, SocketEvents, SocketTask, TaskOptions, Transport, WebSocketClass } from './transport.js';
export type * from './types.js';
