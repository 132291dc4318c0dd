// The conformance guest in TypeScript. ../../README.md describes its behaviour.
import type { Access } from "skylark:plugin/access";
import type { Alarms } from "skylark:plugin/alarms";
import type { Auth } from "skylark:plugin/auth";
import type { Events } from "skylark:plugin/events";
import type { Filter, Verdict } from "skylark:plugin/filter";
import type { Handler, Reply } from "skylark:plugin/handler";
import type { Receipts } from "skylark:plugin/receipts";
import type { Lifecycle } from "skylark:plugin/lifecycle";
import type { Entry, Message, StreamName } from "skylark:plugin/types";
import * as clock from "skylark:plugin/clock";
import * as counters from "skylark:plugin/counters";
import * as crypto from "skylark:plugin/crypto";
import * as directory from "skylark:plugin/directory";
import * as history from "skylark:plugin/history";
import * as http from "skylark:plugin/http";
import * as kv from "skylark:plugin/kv";
import * as log from "skylark:plugin/log";
import * as login from "skylark:plugin/login";
import * as outbox from "skylark:plugin/outbox";
import * as publication from "skylark:plugin/publication";
import * as settings from "skylark:plugin/settings";
import * as timers from "skylark:plugin/timers";

export const lifecycle: Lifecycle = {
  start() {
    if (settings.get("start") === "error") throw "told to fail";
    if (settings.get("start") === "trap") trap();
  },
};

export const auth: Auth = {
  admit(transport, claim) {
    switch (claim.token) {
      case null:
        return { tag: "abstain" };
      case "no":
        return { tag: "refuse", val: { code: "403", reason: "refused" } };
      case "trap":
        trap();
      case "write":
        try {
          kv.set("k", bytes("v"), null);
        } catch (error) {
          return { tag: "refuse", val: { code: "409", reason: name(error) } };
        }
    }
    const { listener, remote, path, origin, userAgent: agent, bound } = transport;
    const known = { listener, remote, path, origin, agent, bound, channel: claim.channel };
    const claims = Object.entries(known).map(([key, value]): Entry => [key, value ?? "-"]);
    const expires = Math.floor(clock.now() / 1000) + 60;
    const { uid, device, data } = claim;
    return { tag: "admit", val: { uid: uid ?? "-", device, rooms: ["a", "b"], expires, claims: [...claims, ...data] } };
  },
};

export const access: Access = {
  join({ uid, cid, device, channel }, claims, room, data) {
    switch (room) {
      case "no":
        return { tag: "refuse", val: { code: "403", reason: "refused" } };
      case "trap":
        trap();
      case "write":
        try {
          kv.set("k", bytes("v"), null);
          return { tag: "allow", val: null };
        } catch (error) {
          return { tag: "refuse", val: { code: "409", reason: name(error) } };
        }
      case "until":
        return { tag: "allow", val: Math.floor(clock.now() / 1000) + 60 };
      case "seen": {
        const parts = [uid, `${cid}`, device ?? "-", channel ?? "-", listed(claims), listed(data)];
        return { tag: "refuse", val: { code: "418", reason: parts.join("|") } };
      }
    }
    const isNamed = claims.some(([key, value]) => key === "join" && value === room);
    return isNamed ? { tag: "allow", val: null } : { tag: "abstain" };
  },
};

const listed = (entries: Entry[]) => entries.map(([key, value]) => `${key}=${value}`).join(",");

export const filter: Filter = {
  judge() {
    const { id, action, sender, receiver, title, image, format, timestamp } = publication;
    switch (action()) {
      case "reject":
        return rejected("403", title());
      case "drop":
        return { tag: "drop" };
      case "trap":
        trap();
      case "spin":
        spin();
      case "write":
        try {
          kv.set("k", bytes("v"), null);
          return { tag: "allow" };
        } catch (error) {
          return rejected("409", name(error));
        }
      case "fields":
        return titled([action(), sender(), receiver(), image(), format(), `${id()}`, `${timestamp()}`]);
      case "seen": {
        const { publisher, origin, targetKind, targetCount, targetUids, targetRoom } = publication;
        const uids = targetUids(0, 1000).join(",");
        const parts = [publisher() ?? "-", origin(), targetKind(), `${targetCount()}`, uids, targetRoom() ?? "-"];
        return titled(parts, ["parts", `${publication.content().length}`]);
      }
      case "online":
        return { tag: directory.online(receiver()) ? "allow" : "drop" };
      // example: counters
      case "count":
        return counters.addAndRead(sender(), 60, 1) > 2 ? rejected("429", "too many") : { tag: "allow" };
      // end
      case "log":
        log.write("debug", "one");
        log.write("info", "two");
        log.write("warn", "three");
        log.write("error", "four");
        return { tag: "allow" };
      case "setting":
        return rejected("403", settings.get("word") ?? "-");
    }
    return { tag: "allow" };
  },
};

const rejected = (code: string, reason: string): Verdict => ({ tag: "reject", val: { code, reason } });

function titled(parts: string[], ...extra: Entry[]): Verdict {
  const message = publication.message();
  return { tag: "replace", val: { ...message, title: parts.join("|"), extra: [...message.extra, ...extra] } };
}

export const handler: Handler = {
  keys: () => ["echo", "kv", "cas", "add", "push", "room", "kick", "who", "crypto", "http", "login", "timer", "history", "hog", "fail", "trap", "spin"],

  handle(call) {
    const data = Object.fromEntries(call.data);
    const caller = call.caller?.uid ?? "-";
    const answer = (...data: Entry[]): Reply => ({ code: "200", message: "", data });
    const refusal = (code: string, message: string): Reply => ({ code, message, data: [] });
    switch (call.key) {
      case "echo":
        return { code: "200", message: caller, data: [...call.data, ["cid", `${call.cid}`]] };
      // example: kv
      case "kv":
        try {
          if ("set" in data) kv.set("k", bytes(data.set), 10);
        } catch (error) {
          return refusal("409", name(error));
        }
        if ("delete" in data) kv.delete("k");
        return answer(["value", text(kv.get("k") ?? bytes("-"))]);
      case "cas": {
        const expected = "expected" in data ? bytes(data.expected) : null;
        return answer(["done", `${kv.compareAndSwap("k", expected, bytes(data.value), null)}`]);
      }
      case "add":
        try {
          return answer(["sum", `${kv.add("n", Number(data.amount), null)}`]);
        } catch (error) {
          return refusal("409", name(error));
        }
      // end
      // example: outbox
      case "push":
        try {
          const options: outbox.Options = { key: "once", history: { tag: "no" }, noEcho: call.cid };
          outbox.push({ tag: "user", val: data.to }, message("hi", caller, ["text", data.text]), options);
          return answer();
        } catch (error) {
          return refusal("400", thrown<{ val: string }>(error).val);
        }
      case "room":
        outbox.join(caller, data.join);
        outbox.leave(caller, data.leave);
        return answer();
      case "kick":
        outbox.kick({ tag: "user", val: data.who }, "told to go");
        return answer();
      // end
      // example: directory
      case "who": {
        const known = directory.connections(data.who);
        return answer(
          ["online", `${directory.online(data.who)}`],
          ["count", `${known.length}`],
          ["device", known[0]?.device ?? "-"],
          ["members", directory.members(data.room, 0, 10).sort().join(",")],
        );
      }
      // end
      // example: http
      case "http":
        try {
          const request = { method: "GET", url: data.url, headers: [["x-asked", "6"]] as Entry[], body: null, timeoutMs: 2000 };
          const { status, headers, body } = http.send(request);
          const shown = headers.find(([key]) => key === "x-shown")?.[1] ?? "-";
          return answer(["status", `${status}`], ["shown", shown], ["body", text(body)]);
        } catch (error) {
          return refusal("502", name(error));
        }
      // end
      // example: login
      case "login":
        try {
          const expires = Math.floor(clock.now() / 1000) + 60;
          login.bind(Number(data.cid), { uid: data.uid, device: "desk", channel: "web", rooms: ["a"], expires, claims: [] });
          return answer();
        } catch (error) {
          return refusal("409", name(error));
        }
      // end
      // example: timers
      case "timer":
        try {
          if ("cancel" in data) timers.cancel(data.cancel);
          else timers.start(data.name, Number(data.after), bytes(data.data ?? ""));
          return answer();
        } catch (error) {
          return refusal("409", name(error));
        }
      // end
      // example: history
      case "history":
        try {
          const stream: StreamName = "room" in data ? { tag: "room", val: data.room } : { tag: "everyone" };
          const limit = Number(data.limit ?? 0);
          const from = { epoch: data.epoch, offset: Number(data.offset ?? 0), id: Number(data.id ?? 0) };
          const page = "epoch" in data ? history.after(stream, from, limit) : history.latest(stream, limit);
          const { epoch, offset, id } = history.position(stream);
          const shown = page.messages.map((kept) => `${kept.offset}=${kept.message.action}`);
          return answer(
            ["top", `${epoch}:${offset}:${id}`],
            ["messages", shown.join(",")],
            ["missed", page.missed ?? "-"],
          );
        } catch (error) {
          return refusal("409", name(error));
        }
      // end
      case "hog":
        for (const kept: Uint8Array[] = []; ; ) kept.push(new Uint8Array(1 << 20).fill(1));
      // example: crypto
      case "crypto":
        return answer(
          ["sha256", hex(crypto.sha256(bytes(data.text)))],
          ["hmac", hex(crypto.hmacSha256(bytes(data.key), bytes(data.text)))],
          ["random", `${crypto.random(16).length}`],
        );
      // end
    }
    outbox.push({ tag: "user", val: caller }, message("hi", caller), null);
    if (call.key === "fail") throw "told to fail";
    return call.key === "trap" ? trap() : spin();
  },
};

export const events: Events = {
  onEvent({ tag, val }) {
    const [uid, room] = "who" in val ? [val.who.uid, val.room] : [val.uid, "-"];
    tell(message("event", "", ["event", tag], ["uid", uid], ["room", room]));
  },
};

// example: receipts
export const receipts: Receipts = {
  resumed({ uid }, streams) {
    const shown = streams.map(({ name, recovered, count }) => `${stream(name)}=${recovered}:${count ?? "-"}`);
    tell(message("receipt", "", ["receipt", "resumed"], ["uid", uid], ["streams", shown.join(",")]));
  },
  undelivered(uid, id, cause) {
    tell(message("receipt", "", ["receipt", "undelivered"], ["uid", uid], ["id", `${id}`], ["cause", cause]));
  },
};

function stream(name: StreamName): string {
  return name.tag === "everyone" ? "all" : `${name.tag === "user" ? "u" : "r"}:${name.val}`;
}
// end

// example: timers
export const alarms: Alarms = {
  onTimer(name, data) {
    if (name === "trap") trap();
    tell(message("timer", "", ["name", name], ["data", text(data)]));
  },
};
// end

function tell(what: Message) {
  try {
    outbox.push({ tag: "room", val: "events" }, what, null);
  } catch (error) {
    log.write("error", name(error));
  }
}

function message(action: string, sender: string, ...content: Entry[]): Message {
  return { id: 0, action, content, sender, receiver: "", extra: [], title: "", image: "", format: "", timestamp: 0 };
}

function trap(): never {
  throw new Error("trap");
}

function spin(): never {
  for (;;);
}

const thrown = <T>(error: unknown) => (error as { payload: T }).payload;
const name = (error: unknown) => thrown<{ tag: string }>(error).tag;
// The engine has no TextEncoder.
const bytes = (value: string) => Uint8Array.from(unescape(encodeURIComponent(value)), (letter) => letter.charCodeAt(0));
const text = (value: Uint8Array) => decodeURIComponent(escape(String.fromCharCode(...value)));
const hex = (value: Uint8Array) => Array.from(value, (byte) => byte.toString(16).padStart(2, "0")).join("");
