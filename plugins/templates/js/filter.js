// Rejects messages with the word of the settings in the title or the text.
import * as publication from "skylark:plugin/publication";
import * as settings from "skylark:plugin/settings";

export const filter = {
  judge() {
    const word = settings.get("word") ?? "gossip";
    const texts = publication.content().filter(([key]) => key === "text").map(([, value]) => value);
    if ([publication.title(), ...texts].some((text) => text.includes(word))) {
      return { tag: "reject", val: { code: "403", reason: `no ${word} here` } };
    }
    return { tag: "allow" };
  },
};
