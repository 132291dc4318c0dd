// Lets users join the rooms of their team: the room `team:red` requires the claim `team` = `red`.
import type { Access } from "skylark:plugin/access";
import * as settings from "skylark:plugin/settings";

export const access: Access = {
  join(_who, claims, room, _data) {
    const prefix = settings.get("prefix") ?? "team:";
    if (!room.startsWith(prefix)) return { tag: "abstain" };
    const team = claims.find(([key]) => key === "team")?.[1];
    if (team !== room.slice(prefix.length)) {
      return { tag: "refuse", val: { code: "403", reason: "the room of another team" } };
    }
    return { tag: "allow", val: null };
  },
};
