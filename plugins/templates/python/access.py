"""Lets users join the rooms of their team: the room `team:red` requires the claim `team` = `red`."""

from wit_world import exports
from wit_world.exports.access import Answer, Answer_Abstain, Answer_Allow, Answer_Refuse
from wit_world.imports import settings
from wit_world.imports.types import Identity, Refusal


class Access(exports.Access):
    def join(self, who: Identity, claims: list[tuple[str, str]], room: str, data: list[tuple[str, str]]) -> Answer:
        prefix = settings.get("prefix") or "team:"
        if not room.startswith(prefix):
            return Answer_Abstain()
        if dict(claims).get("team") != room.removeprefix(prefix):
            return Answer_Refuse(Refusal("403", "the room of another team"))
        return Answer_Allow(None)
