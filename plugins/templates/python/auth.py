"""Admits clients with the token of the settings, as the user that they claim to be."""

from wit_world import exports
from wit_world.exports.auth import Admission, Answer, Answer_Abstain, Answer_Admit, Answer_Refuse, Claim, Transport
from wit_world.imports import settings
from wit_world.imports.types import Refusal


class Auth(exports.Auth):
    def admit(self, transport: Transport, claim: Claim) -> Answer:
        if claim.token is None:
            return Answer_Abstain()
        if claim.token != settings.get("token") or claim.uid is None:
            return Answer_Refuse(Refusal("401", "wrong token"))
        return Answer_Admit(Admission(uid=claim.uid, device=None, rooms=[], expires=None, claims=[]))
