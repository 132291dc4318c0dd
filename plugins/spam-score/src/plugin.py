"""Rejects messages of senders that send too many, or repeat the same text. README.md describes the rules."""

import hashlib
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.filter import Verdict, Verdict_Allow, Verdict_Reject
from wit_world.imports import counters, log, publication, settings
from wit_world.imports.types import Origin, Refusal

DEFAULTS = {
    "window": 60, "messages": 30, "repeats": 3, "limit": 100, "dry_run": False,
    "code": "429", "reason": "too many messages, wait a moment",
}
rules = dict(DEFAULTS)
# Characters of a text that are compared; the length of a longer text is compared too.
COMPARED = 2_000


class Lifecycle(exports.Lifecycle):
    def start(self) -> None:
        given = json.loads(settings.json())
        for key, value in given.items():
            if key not in DEFAULTS:
                raise Err(f"settings.{key}: expected one of {', '.join(DEFAULTS)}")
            if type(value) is not type(DEFAULTS[key]):
                raise Err(f"settings.{key}: expected a value like {DEFAULTS[key]!r}, got {value!r}")
            if type(value) is int and value < 1:
                raise Err(f"settings.{key}: expected at least 1, got {value}")
        rules.update(given)


class Filter(exports.Filter):
    def judge(self) -> Verdict:
        # Publishes of back ends are not limited: only clients have a known publisher.
        sender = publication.publisher()
        if sender is None or publication.origin() is not Origin.CLIENT:
            return Verdict_Allow()
        score = rate(sender) + repetition(sender)
        if score <= rules["limit"]:
            return Verdict_Allow()
        log.write(log.Level.INFO, f"{sender} scores {score}")
        if rules["dry_run"]:
            return Verdict_Allow()
        return Verdict_Reject(Refusal(rules["code"], rules["reason"]))


def rate(sender: str) -> int:
    """Scores 100 for the allowed number of messages in the window, in proportion below and above."""
    sent = counters.add_and_read(f"rate:{sender}", rules["window"], 1)
    return 100 * sent // rules["messages"]


def repetition(sender: str) -> int:
    """Scores 100 for each repetition of the same text beyond the allowed number."""
    text = " ".join(value for _, value in publication.content())
    compared = text[:COMPARED].casefold().split()
    if not compared:
        return 0
    if len(text) > COMPARED:
        compared.append(str(len(text)))
    what = hashlib.sha256(" ".join(compared).encode()).hexdigest()[:16]
    said = counters.add_and_read(f"said:{sender}:{what}", rules["window"], 1)
    return 100 * max(0, said - rules["repeats"])
