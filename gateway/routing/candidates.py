"""Which backends of a deployment to try, in which order; each is chosen when it is asked for, by what is known then."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Final, Protocol

from gateway.config.documents import Backend, Deployment, PoolMember
from gateway.routing.board import View
from gateway.routing.choice import Candidate, Expectations, Facts, best_first, expectations
from gateway.routing.slots import FREE, Slot

_OUT: Final = frozenset({"ejected", "trial"})


class Board(Protocol):
    """What is asked of routing/board.py."""

    def view(self, backend: Backend) -> View:
        """How it looks now. Cheap."""

    def take_trial(self, backend: Backend) -> bool:
        """Is this call the one that tries whether it is back?"""


def ranked(
    deployment: Deployment,
    facts: Facts,
    board: Board,
    slot: Slot = FREE,
    *,
    expected: Expectations = expectations,
    clock: Callable[[], float] = time.monotonic,
    dice: Callable[[], float] = random.random,
) -> Iterator[Backend]:
    """The next backend to try, each time one that was not tried yet; ends when there is none. Ask for one at a time.

    Of the lowest tier that has any: not ejected, not draining, with this model and a context that fits. A backend whose trial
    is due comes first, for the one call that takes the trial. Where nothing is left but ejected ones, the one that was
    ejected the longest ago is tried rather than failing, unless another deployment takes over.
    slot: from Slots.slot(); each backend yielded has a place held for this call, and the one before it is given back. Where
    all are at their ceilings this waits: next() raises Overloaded (with the true retry_after_s) past the bound, and ClientLeft
    after slot.abandon().
    """
    tried: set[str] = set()
    while True:
        fitting = _fitting(deployment, facts, board)
        if tried:
            fitting = [one for one in fitting if one.member.backend.name not in tried]
        usable = [one for one in fitting if one.view.state not in _OUT and one.view.readiness > 0]
        wished = _in_tiers(usable, facts, expected, clock(), dice, only_first=not slot.is_limited)
        may_try = len(usable) < len(fitting) and (not tried or not usable)
        if may_try and (on_trial := _on_trial(fitting, usable, board)) is not None:
            wished.insert(0, on_trial)
        is_last = not wished
        if is_last and deployment.fallback is None:
            wished = _longest_out(fitting)
        if not wished:
            return
        spare = [one.member for one in fitting if one.member not in wished] if slot.is_limited else ()
        backend = slot.at(wished, spare).backend
        tried.add(backend.name)
        yield backend
        if is_last:
            return


def usable_members(deployment: Deployment, board: Board) -> list[PoolMember]:
    """Those that may be given a call now; where all are out, all that are not draining: one of them is tried all the same."""
    members = [member for member in deployment.members if not member.backend.is_draining]
    return [member for member in members if _takes_calls(board.view(member.backend))] or members


def fits(deployment: Deployment, facts: Facts, board: Board) -> bool:
    """Has any backend of it a context for this prompt? False: deployment.context_fallback, if any, is the one to ask."""
    contexts = [_context(board.view(member.backend)) for member in deployment.members]
    return facts.prompt_tokens < min(max(contexts, default=inf), deployment.max_model_len or inf)


def is_out(deployment: Deployment, board: Board) -> bool:
    """Is every backend of it ejected, draining or without its model, and none on trial? True: deployment.fallback is asked."""
    for member in deployment.members:
        if not member.backend.is_draining:
            view = board.view(member.backend)
            if view.state != "ejected" and view.serves(deployment.served_model):
                return False
    return True


def _takes_calls(view: View) -> bool:
    return view.state not in _OUT and view.readiness > 0


def _context(view: View) -> float:
    return view.max_model_len or inf


def _fitting(deployment: Deployment, facts: Facts, board: Board) -> list[Candidate]:
    """Those with this model and a context for the prompt; where none has one, the largest: the count is only a likely one."""
    serving, has_room = [], True
    for member in deployment.members:
        if not member.backend.is_draining:
            view = board.view(member.backend)
            if view.models is None or deployment.served_model in view.models:
                serving.append(Candidate(member, view))
                has_room &= view.max_model_len is None or facts.prompt_tokens < view.max_model_len
    if has_room:
        return serving
    largest = max(_context(one.view) for one in serving)
    return [one for one in serving if facts.prompt_tokens < _context(one.view) or _context(one.view) == largest]


def _in_tiers(
    usable: Sequence[Candidate],
    facts: Facts,
    expected: Expectations,
    now_s: float,
    dice: Callable[[], float],
    *,
    only_first: bool,
) -> list[PoolMember]:
    """Best first within each tier, the lowest tier first. only_first: nobody waits for a place, so nobody asks for the rest."""
    best: list[PoolMember] = []
    if len(usable) == 1:
        return [usable[0].member]
    for tier in sorted({one.member.tier for one in usable}):
        within = [one for one in usable if one.member.tier == tier]
        best += best_first(within, facts, expected=expected, now_s=now_s, dice=dice)
        if only_first:
            break
    return best


def _on_trial(fitting: Sequence[Candidate], usable: Sequence[Candidate], board: Board) -> PoolMember | None:
    """A backend that this very call tries. One of a higher tier is left until it is needed."""
    on_trial = [one.member for one in fitting if one.view.state == "trial"]
    if not on_trial:
        return None
    highest = min((one.member.tier for one in usable), default=inf)
    due = (member for member in on_trial if member.tier <= highest)
    return next((member for member in due if board.take_trial(member.backend)), None)


def _longest_out(fitting: Sequence[Candidate]) -> list[PoolMember]:
    order = sorted((one for one in fitting if not _takes_calls(one.view)), key=lambda one: one.view.ejected_at_s or 0.0)
    return [one.member for one in order]
