"""Answers the key `greet`, and counts the greetings of each user."""

from wit_world import exports
from wit_world.exports.handler import Call, Reply
from wit_world.imports import kv


class Handler(exports.Handler):
    def keys(self) -> list[str]:
        return ["greet"]

    def handle(self, call: Call) -> Reply:
        if call.caller is None:
            return Reply("401", "who are you?", [])
        uid = call.caller.uid
        times = int(kv.get(f"greeted:{uid}") or b"0") + 1
        kv.set(f"greeted:{uid}", str(times).encode(), None)
        return Reply("200", "", [("greeting", f"hello, {uid}"), ("times", str(times))])
