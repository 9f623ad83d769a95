"""Where deployments hand calls on to: circles, contexts that are no longer, the order of removal."""

import pytest

from gateway.config.fallbacks import Ways, problems, users_first


def ways(*, context: dict[str, int] | None = None, **edges: str) -> dict[str, Ways]:
    """a="b" is a fallback to b, a="+b" a context fallback, a="b+c" both."""
    names = {*edges, *(context or {})} | {name for edge in edges.values() for name in edge.split("+") if name}
    told = {}
    for name in sorted(names):
        fallback, _, longer = edges.get(name, "").partition("+")
        told[name] = Ways(fallback or None, longer or None, (context or {}).get(name))
    return told


def test_ways_that_end_are_good() -> None:
    assert not list(problems(ways()))
    assert not list(problems(ways(a="b", b="c", c="d+e")))
    assert not list(problems(ways(a="c+b", b="c")))  # two ways to the same one


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (ways(a="a"), {("a", "fallback", "a -> a")}),
        (ways(a="b", b="a"), {("a", "fallback", "a -> b -> a"), ("b", "fallback", "b -> a -> b")}),
        (ways(a="+b", b="a"), {("a", "context_fallback", "a -> b -> a"), ("b", "fallback", "b -> a -> b")}),
        (
            ways(start="a", a="b", b="+c", c="a"),
            {
                ("a", "fallback", "a -> b -> c -> a"),
                ("b", "context_fallback", "b -> c -> a -> b"),
                ("c", "fallback", "c -> a -> b -> c"),
            },
        ),
    ],
)
def test_circle_is_told_with_its_way(held: dict[str, Ways], told: set[tuple[str, str, str]]) -> None:
    found = {(problem.deployment, problem.field, problem.message) for problem in problems(held)}
    assert found == {
        (name, field, f"Calls would go in a circle: {circle}. Leave one of these out.") for name, field, circle in told
    }


def test_context_fallback_takes_longer_prompts() -> None:
    assert not list(problems(ways(small="+large", context={"small": 8192, "large": 131_072})))
    assert not list(problems(ways(small="+large", context={"small": 8192})))
    assert not list(problems(ways(small="large", context={"small": 8192, "large": 4096})))
    [problem] = problems(ways(small="+large", context={"small": 8192, "large": 8192}))
    assert (problem.deployment, problem.field) == ("small", "context_fallback")
    assert problem.message == "“large” takes 8192 tokens, no more than the 8192 of this one: name one that takes more."


def test_users_are_removed_before_what_they_use() -> None:
    assert users_first(ways(b="a", c="b+d")) == ["c", "b", "a", "d"]
    assert users_first(ways(a="z", m="z", z="b")) == ["a", "m", "z", "b"]
