// Logs a waiting connection in by a code that a bound connection confirms. README.md describes keys, push and settings.
import type { Call, Handler, Reply } from "skylark:plugin/handler";
import type { Lifecycle } from "skylark:plugin/lifecycle";
import type { Entry } from "skylark:plugin/types";
import * as clock from "skylark:plugin/clock";
import * as crypto from "skylark:plugin/crypto";
import * as kv from "skylark:plugin/kv";
import * as outbox from "skylark:plugin/outbox";
import { type Settings, read } from "./settings";
import { bytes, hex, text, token } from "./token";

let rules: Settings;

export const lifecycle: Lifecycle = {
  start() {
    rules = read();
  },
};

export const handler: Handler = {
  keys: () => ["login_request", "login_status", "login_confirm"],

  handle(call) {
    switch (call.key) {
      case "login_request":
        return request(call);
      case "login_status":
        return status(call);
      default:
        return confirm(call);
    }
  },
};

/** Makes a new code for a waiting connection. It replaces the former code, because a connection has one key. */
function request({ caller, cid }: Call): Reply {
  if (caller !== null) return refusal("409", "this connection is bound already");
  const secret = hex(crypto.random(16));
  const expires = seconds() + rules.wait;
  kv.set(place(cid), bytes(`${digest(secret)} ${expires}`), rules.wait);
  return answer(["code", `${cid.toString(36)}-${secret}`], ["expires", `${expires}`]);
}

/** Tells if the code can still be confirmed. The request also delays the close of the unbound connection. */
function status({ cid }: Call): Reply {
  const open = kv.get(place(cid));
  return open === null ? refusal("404", "no code waits: ask login_request") : answer(["expires", text(open).split(" ")[1]]);
}

/** Confirms a code: removes it, and pushes a token of the phone's user to the connection that showed it. */
function confirm({ caller, data }: Call): Reply {
  if (caller === null) return refusal("401", "only a bound connection confirms a login");
  const code = data.find(([name]) => name === "code")?.[1] ?? "";
  // A code has fewer than 50 characters. Longer texts are rejected early to save time.
  if (code.length > 64) return refusal("404", UNKNOWN);
  const [cid, secret] = [parseInt(code, 36), code.slice(code.indexOf("-") + 1)];
  const open = Number.isSafeInteger(cid) && cid > 0 ? kv.get(place(cid)) : null;
  // The store keeps a digest, so neither the store nor the time of the comparison reveals a code.
  if (open === null || text(open).split(" ")[0] !== digest(secret)) {
    return refusal("404", UNKNOWN);
  }
  kv.delete(place(cid));
  const expires = seconds() + rules.session;
  const content: Entry[] = [["token", token(caller.uid, seconds(), expires, rules)], ["uid", caller.uid], ["expires", `${expires}`]];
  outbox.push({ tag: "connection", val: cid }, { ...EMPTY, action: rules.action, sender: caller.uid, content }, null);
  return answer();
}

const EMPTY = { id: 0, action: "", sender: "", receiver: "", title: "", image: "", format: "", timestamp: 0, content: [], extra: [] };
const UNKNOWN = "this code is unknown, used or over";
const place = (cid: number) => `waits:${cid}`;
const digest = (secret: string) => hex(crypto.sha256(bytes(secret)));
const seconds = () => Math.floor(clock.now() / 1000);
const answer = (...data: Entry[]): Reply => ({ code: "200", message: "", data });
const refusal = (code: string, message: string): Reply => ({ code, message, data: [] });
