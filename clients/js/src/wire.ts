/** Frames of the dialect `yunque.json`. */

import type { Data, Reply } from './types.js';

/** Types of frames. */
export const PONG = 0;
export const PING = 1;
export const MESSAGE = 2;
export const SENT = 3;
export const REPLY = 4;

/** Encodes a frame. The body is JSON text in a string. */
export function encode(type: number, body?: object): string {
  return JSON.stringify({ type, content: body && JSON.stringify(body) });
}

/** Decodes a frame. Throws on malformed JSON. */
export function decode(text: string): { type: number; body: any } {
  const { type, content } = JSON.parse(text);
  return { type, body: type == MESSAGE || type == REPLY ? JSON.parse(content) : {} };
}

/** A reply with all fields. */
export function replyOf(body: any): Reply {
  const { key, code, message = '', timestamp = 0, data = {} } = body;
  return { key, code: +code, message, timestamp, data };
}

/** Values as texts; undefined and null are left out. */
export function texts(data: Data = {}): Record<string, string> {
  const out: Record<string, string> = {};
  for (const key in data) {
    const value = data[key];
    if (value != null) out[key] = typeof value == 'object' ? JSON.stringify(value) : String(value);
  }
  return out;
}

/**
 * The body of a message: a text becomes `{text}`. An object of texts stays as it is, and any other value goes
 * as JSON text into the key `json`.
 */
export function contentOf(value: unknown): string {
  if (typeof value == 'string') value = { text: value };
  const isPlain =
    value instanceof Object && !('json' in value || Array.isArray(value)) && Object.values(value).every((v) => typeof v == 'string');
  return JSON.stringify(isPlain ? value : { json: JSON.stringify(value) });
}
