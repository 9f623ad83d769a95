"""What counts as the same beginning, and how backends share the beginnings out."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.affinity import BEGINNING_MAX_CHARS, beginning, draw, place

SYSTEM = {"role": "system", "content": "You count sheep."}
QUESTION = {"role": "user", "content": "How many are there?"}
TOOL = {"type": "function", "function": {"name": "count"}}


def test_every_turn_of_a_conversation_begins_alike() -> None:
    later = [SYSTEM, QUESTION, {"role": "assistant", "content": "Three."}, {"role": "user", "content": "And now?"}]
    assert beginning(later) == beginning([SYSTEM, QUESTION])


@pytest.mark.parametrize(
    "other",
    [
        [SYSTEM, {"role": "user", "content": "How many are here?"}],
        [QUESTION],
        [{"role": "system", "content": "You count goats."}, QUESTION],
        [{"role": "developer", "content": "You count sheep."}, QUESTION],
        [SYSTEM, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://sheep.example/1.png"}}]}],
        [{"role": "system", "content": "You count sheep.How many are there?"}, {"role": "user", "content": ""}],
    ],
)
def test_other_words_begin_otherwise(other: list[dict[str, Any]]) -> None:
    assert beginning(other) != beginning([SYSTEM, QUESTION])


def test_other_tools_begin_otherwise() -> None:
    assert beginning([QUESTION], [TOOL]) != beginning([QUESTION])
    assert beginning([QUESTION], [TOOL]) != beginning([QUESTION], [TOOL, TOOL])


def test_images_are_told_apart() -> None:
    first, second = (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:{kind}"}}]}] for kind in "ab"
    )
    assert beginning(first) != beginning(second)


def test_a_long_beginning_may_be_shared_whatever_follows() -> None:
    shared = {"role": "system", "content": "The rules of the house. " * 100}
    assert len(shared["content"]) > BEGINNING_MAX_CHARS
    assert beginning([shared, QUESTION]) == beginning([shared, {"role": "user", "content": "Something else."}])


def test_a_huge_beginning_costs_no_more() -> None:
    huge = [{"role": "user", "content": "sheep " * 1_000_000}]
    assert beginning(huge) == beginning([{"role": "user", "content": "sheep " * 100}])


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.text()},
            optional={
                "content": st.none()
                | st.text()
                | st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.dictionaries(st.text(), st.text())))
            },
        )
    )
)
def test_any_conversation_has_a_beginning(messages: list[dict[str, Any]]) -> None:
    assert len(beginning(messages)) == 16


def test_nothing_of_the_text_is_in_the_digest() -> None:
    assert b"sheep" not in beginning([SYSTEM])


def winners(weights: dict[str, int], *, tenant: str = "acme") -> list[str]:
    """The backend of each of 4,000 beginnings."""

    def winner(number: int) -> str:
        digest = beginning([{"role": "user", "content": str(number)}])
        return min(weights, key=lambda name: place(draw(tenant, digest, name), weights[name]))

    return [winner(number) for number in range(4000)]


def test_beginnings_are_shared_out_by_weight() -> None:
    counts = Counter(winners({"gpu-1": 1, "gpu-2": 3}))
    assert counts["gpu-2"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_backend_that_goes_takes_only_its_own_beginnings_with_it() -> None:
    before, after = winners({"gpu-1": 1, "gpu-2": 1, "gpu-3": 1}), winners({"gpu-1": 1, "gpu-2": 1})
    assert all(now == then for then, now in zip(before, after, strict=True) if then != "gpu-3")


def test_tenants_have_beginnings_of_their_own() -> None:
    same = [a == b for a, b in zip(winners({"a": 1, "b": 1}), winners({"a": 1, "b": 1}, tenant="globex"), strict=True)]
    assert sum(same) / len(same) == pytest.approx(0.5, abs=0.05)
