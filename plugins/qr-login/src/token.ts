// A JSON Web Token signed with HMAC-SHA-256 (RFC 7519, HS256) for token-auth, and the text functions that it needs.
import * as crypto from "skylark:plugin/crypto";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/** A token of this user. Times are seconds since 1970; an empty key gives no `kid`. */
export function token(uid: string, now: number, expires: number, { secret, key }: { secret: string; key: string }): string {
  const header = { alg: "HS256", typ: "JWT", ...(key === "" ? {} : { kid: key }) };
  const claims = { sub: uid, iat: now, exp: expires };
  const signed = [header, claims].map((part) => base64url(bytes(JSON.stringify(part)))).join(".");
  return `${signed}.${base64url(crypto.hmacSha256(bytes(secret), bytes(signed)))}`;
}

function base64url(data: Uint8Array): string {
  let letters = "";
  for (let at = 0; at < data.length; at += 3) {
    const [first, second = 0, third = 0] = data.subarray(at, at + 3);
    const bits = (first << 16) | (second << 8) | third;
    const four = [18, 12, 6, 0].map((shift) => LETTERS[(bits >> shift) & 63]);
    letters += four.slice(0, Math.min(3, data.length - at) + 1).join("");
  }
  return letters;
}

/** The UTF-8 of a text: the engine has no TextEncoder. */
export const bytes = (value: string) => Uint8Array.from(unescape(encodeURIComponent(value)), (letter) => letter.charCodeAt(0));
/** The text of ASCII bytes. */
export const text = (value: Uint8Array) => String.fromCharCode(...value);
export const hex = (value: Uint8Array) => Array.from(value, (byte) => byte.toString(16).padStart(2, "0")).join("");
