/** Sockets of the platforms. Does not know frames. */

/** An open or opening socket. */
export interface Socket {
  send(text: string): void;
  close(code: number, reason: string): void;
}

/** Receiver of a socket's events. Nothing may follow `closed`. */
export interface SocketEvents {
  opened(): void;
  received(text: string): void;
  closed(code: number, reason: string): void;
}

/** Dials a URL. Throws if the URL is invalid. */
export type Transport = (url: string, events: SocketEvents) => Socket;

/** The part of the WebSocket interface that the client uses; also that of the package `ws`. */
interface WebSocketLike {
  send(text: string): void;
  close(code?: number, reason?: string): void;
  onopen: unknown;
  onmessage: unknown;
  onclose: unknown;
  onerror: unknown;
}

/** A class like `WebSocket`. */
export type WebSocketClass = new (url: string) => unknown;

/**
 * Dials with a WebSocket class: that of the platform, or of the package `ws` for Node 20 and older.
 *
 * @param constructor Default: the global `WebSocket`.
 */
export function web(constructor?: WebSocketClass): Transport {
  return (url, events) => {
    const socket = new (constructor || WebSocket)(url) as WebSocketLike;
    socket.onopen = () => events.opened();
    socket.onmessage = ({ data }: { data: unknown }) => typeof data == 'string' && events.received(data);
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => events.closed(code, reason);
    // The close event follows.
    socket.onerror = () => {};
    return socket;
  };
}

/** A socket task of uniapp or of a mini program. */
export interface SocketTask {
  send(options: { data: string }): void;
  close(options: { code: number; reason: string }): void;
  onOpen(listener: () => void): void;
  onMessage(listener: (message: { data: unknown }) => void): void;
  onClose(listener: (end?: { code?: number; reason?: string }) => void): void;
  onError(listener: (error?: { errMsg?: string }) => void): void;
}

/** Options that a task is created with. */
export interface TaskOptions {
  url: string;
  complete(): void;
  fail(error?: { errMsg?: string }): void;
}

/**
 * Dials with a function of uniapp or of a mini program: `task((options) => uni.connectSocket(options))`.
 *
 * Pass a function, never the object `uni`: the H5 compiler keeps only the functions that it sees.
 */
export function task(connect: (options: TaskOptions) => unknown): Transport {
  return (url, events) => {
    let ended = false;
    const end = (code: number, reason: string) => {
      if (!ended) {
        ended = true;
        events.closed(code, reason);
      }
    };
    const fail = (error?: { errMsg?: string }) => end(1006, (error && error.errMsg) || '');
    // With `complete` the function returns a task and no promise.
    const socket = connect({ url, complete() {}, fail }) as SocketTask;
    socket.onOpen(() => events.opened());
    socket.onMessage(({ data }) => typeof data == 'string' && events.received(data));
    socket.onClose((info = {}) => end(info.code || 1006, info.reason || ''));
    // The app platform reports an error and no close.
    socket.onError(fail);
    return {
      send: (data) => socket.send({ data }),
      close: (code, reason) => socket.close({ code, reason }),
    };
  };
}
