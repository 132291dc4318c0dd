// Admits clients with the token of the settings, as the user that they claim to be.
import type { Auth } from "skylark:plugin/auth";
import * as settings from "skylark:plugin/settings";

export const auth: Auth = {
  admit(_transport, claim) {
    if (claim.token === null) return { tag: "abstain" };
    if (claim.token !== settings.get("token") || claim.uid === null) {
      return { tag: "refuse", val: { code: "401", reason: "wrong token" } };
    }
    return { tag: "admit", val: { uid: claim.uid, device: null, rooms: [], expires: null, claims: [] } };
  },
};
