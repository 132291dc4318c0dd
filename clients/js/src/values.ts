/** Values of replies and addresses, and the events of a page. */

import type { Position } from './types.js';

/** True for the error that says that the user is signed out. */
export function isUnauthorized(error: unknown): boolean {
  return (error as Error)?.name == 'Unauthorized';
}

/** The stream of a room. */
export function roomName(room: string): string {
  return 'r:' + room;
}

/** A JSON list in a field, which may be missing. */
export function parsed(text?: string): any[] {
  return text ? JSON.parse(text) : [];
}

export function positionOf({ epoch, offset, id }: Record<string, string>): Position {
  return { epoch, offset: +offset, id: number(id) };
}

/** An id as a number, or as its text if JavaScript would round it. */
export function number(text: string): number | string {
  return Number.isSafeInteger(+text) ? +text : text;
}

/** The URL of another node: `host:port` replaces that of the first URL. */
export function addressed(url: string, next: string): string {
  return next.includes('://') ? next : url.replace(/\/\/[^/?]*/, '//' + next);
}

/** Listens for the return of the network and the page, and for the end of the page. */
export function listen(wake: () => void, flush: () => void): AbortController | undefined {
  const { document: page, addEventListener: add } = globalThis;
  if (!page || !add) return;
  const end = new AbortController();
  add('online', wake, end);
  add('pageshow', wake, end);
  add('pagehide', flush, end);
  page.addEventListener('visibilitychange', () => (page.hidden ? flush() : wake()), end);
  return end;
}
