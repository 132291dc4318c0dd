"""Rejects messages with the word of the settings in the title or the text."""

from wit_world import exports
from wit_world.exports.filter import Verdict, Verdict_Allow, Verdict_Reject
from wit_world.imports import publication, settings
from wit_world.imports.types import Refusal


class Filter(exports.Filter):
    def judge(self) -> Verdict:
        word = settings.get("word") or "gossip"
        texts = [publication.title()] + [value for key, value in publication.content() if key == "text"]
        if any(word in text for text in texts):
            return Verdict_Reject(Refusal("403", f"no {word} here"))
        return Verdict_Allow()
