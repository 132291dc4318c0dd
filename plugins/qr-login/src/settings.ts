// The [settings] table of qr-login.toml.
import * as settings from "skylark:plugin/settings";
import { bytes } from "./token";

const DEFAULTS = { secret: "", key: "", wait: 120, session: 86_400, action: "login" };
export type Settings = typeof DEFAULTS;

/** Reads and validates the settings of the operator. The text of an error refuses the file. */
export function read(): Settings {
  const given: Record<string, unknown> = JSON.parse(settings.json());
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(DEFAULTS, name)) throw `settings.${name}: expected one of ${Object.keys(DEFAULTS).join(", ")}`;
    const kind = typeof DEFAULTS[name as keyof Settings];
    if (typeof value !== kind) throw `settings.${name}: expected a ${kind}, got ${JSON.stringify(value)}`;
  }
  const rules: Settings = { ...DEFAULTS, ...given };
  const length = bytes(rules.secret).length;
  if (length < 32) throw `settings.secret: expected at least 32 bytes, got ${length}`;
  within("wait", rules.wait, 10, 300);
  within("session", rules.session, 60, 31_536_000);
  return rules;
}

function within(name: string, value: number, least: number, most: number) {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw `settings.${name}: expected a whole number from ${least} to ${most}, got ${value}`;
}
