"""To which deployment a call goes, and who takes over."""

from collections import Counter

import pytest

from gateway.config.documents import Alias, Deployment, Platform
from gateway.routing.road import Road, drawn

ALIAS = Alias("general", "main", 0, canary="next", canary_percent=10)


def deployments(*ones: Deployment) -> dict[str, Deployment]:
    return {one.name: one for one in ones}


def deployment(name: str, *, fallback: str | None = None, context_fallback: str | None = None) -> Deployment:
    return Deployment(name, "tiny", (), fallback=fallback, context_fallback=context_fallback)


def test_the_canary_gets_its_share() -> None:
    drawn_ones = Counter(drawn(ALIAS, f"call-{number}") for number in range(10_000))
    assert 800 < drawn_ones["next"] < 1200
    assert drawn_ones["next"] + drawn_ones["main"] == 10_000


def test_the_same_call_is_drawn_the_same_way_in_every_worker() -> None:
    assert len({drawn(ALIAS, "call-1") for _ in range(10)}) == 1


@pytest.mark.parametrize(("percent", "name"), [(0, "main"), (100, "next")])
def test_none_and_all_are_none_and_all(percent: int, name: str) -> None:
    alias = Alias("general", "main", 0, canary="next", canary_percent=percent)
    assert {drawn(alias, f"call-{number}") for number in range(1000)} == {name}


def test_an_alias_without_a_canary_has_one_way() -> None:
    assert drawn(Alias("general", "main", 0), "call-1") == "main"


def test_the_road_leads_over_all_that_may_take_over_and_ends() -> None:
    known = deployments(
        deployment("main", fallback="spare", context_fallback="long"),
        deployment("spare", fallback="last"),
        deployment("last", fallback="main"),  # a circle, though nobody can configure one
        deployment("long", fallback="spare"),
        deployment("stranger"),
    )
    road = Road(Platform(known), Alias("general", "main", 0), known["main"])
    assert [one.name for one in road.reach()] == ["main", "spare", "long", "last"]


def test_a_deployment_that_is_not_there_takes_nothing_over() -> None:
    known = deployments(deployment("main", fallback="gone", context_fallback="gone"))
    road = Road(Platform(known), Alias("general", "main", 0), known["main"])
    assert road.where_out(known["main"]) is road.where_too_long(known["main"]) is None


def test_from_a_canary_that_names_none_the_aliass_own_takes_over() -> None:
    known = deployments(deployment("main"), deployment("next"), deployment("spare"))
    road = Road(Platform(known), ALIAS, known["next"])
    assert road.where_out(known["next"]) is known["main"]
    assert road.where_out(known["main"]) is None
    named = deployments(deployment("main"), deployment("next", fallback="spare"), deployment("spare"))
    assert Road(Platform(named), ALIAS, named["next"]).where_out(named["next"]) is named["spare"]
