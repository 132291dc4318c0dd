// Answers the key "greet", and counts the greetings of each user.
import type { Handler } from "skylark:plugin/handler";
import * as kv from "skylark:plugin/kv";

export const handler: Handler = {
  keys: () => ["greet"],

  handle({ caller }) {
    if (caller === null) return { code: "401", message: "who are you?", data: [] };
    const key = `greeted:${caller.uid}`;
    const times = String(Number(text(kv.get(key))) + 1);
    kv.set(key, bytes(times), null);
    return { code: "200", message: "", data: [["greeting", `hello, ${caller.uid}`], ["times", times]] };
  },
};

const text = (value: Uint8Array | null) => String.fromCharCode(...(value ?? []));
const bytes = (value: string) => Uint8Array.from(value, (letter) => letter.charCodeAt(0));
