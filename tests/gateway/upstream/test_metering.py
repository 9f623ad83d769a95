"""What a call used: the backend's own count where it can be right, ours where it cannot; never an error, never below zero."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.metering import NO_USAGE, Meter, Usage
from gateway.upstream.sse import EventKind, EventRewriter, EventSplitter
from tests.gateway.upstream.recordings import content_event, event, every_stream, parsed, usage

CEILING = 1000


def meter(*, choices: int = 1) -> Meter:
    return Meter(choices=choices, prompt_estimate_tokens=7, ceiling_tokens=CEILING)


def final(value: Any) -> bytes:
    return event({"id": "x", "choices": [], "usage": value}).strip()


def content(**more: Any) -> bytes:
    return content_event("word", **more).strip()


@every_stream
def test_recorded_usage_is_what_the_backend_said(path: Path) -> None:
    """The last usage of the recording, wherever it stands; without any, an estimate."""
    stream = path.read_bytes()
    counted = meter(choices=2 if "n2" in path.stem else 1)
    rewriter = EventRewriter(completion_id="c", alias="a", created_s=None, shows_usage=False, shows_running_usage=False)
    for one in EventSplitter().feed(stream):
        if b'"error"' in one:
            break
        kind, _ = rewriter.rewrite(one)
        if kind is EventKind.CONTENT:
            counted.note_content(one)
        elif kind is EventKind.USAGE:
            counted.note_final(one)
    said = [dict(value["usage"]) for value in map(dict, filter(lambda v: v != "[DONE]", parsed(stream))) if "usage" in value]
    if not said:
        assert counted.usage().source == "estimated"
        return
    cached = dict(said[-1].get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    assert counted.usage() == Usage(said[-1]["prompt_tokens"], cached, said[-1]["completion_tokens"], "backend")


def test_nothing_seen_is_nothing_used() -> None:
    assert meter().usage() == NO_USAGE


def test_a_stream_that_ends_early_counts_to_its_last_event() -> None:
    counted = meter()
    for tokens in range(6):
        counted.note_content(content(usage=usage(24, tokens)))
    assert counted.usage() == Usage(24, 0, 5, "backend")


def test_choices_are_summed_and_the_prompt_counted_once() -> None:
    counted = meter(choices=3)
    for index, tokens in [(0, 0), (1, 0), (2, 0), (1, 1), (0, 1), (1, 4), (2, 2), (0, 3)]:
        counted.note_content(content(index=index, usage=usage(24, tokens)))
    assert counted.usage() == Usage(24, 0, 3 + 4 + 2, "backend")


def test_choices_are_told_apart_in_another_form_too() -> None:
    counted = meter(choices=2)
    for index, tokens in [(0, 3), (1, 4), (0, 5)]:
        value = {"choices": [{"delta": {"tool_calls": [{"index": 9}]}, "index": index}], "usage": usage(24, tokens)}
        counted.note_content(b"data: " + orjson.dumps(value, option=orjson.OPT_INDENT_2).replace(b"\n", b"\ndata: "))
    assert counted.usage() == Usage(24, 0, 9, "backend")


def test_the_final_usage_wins() -> None:
    counted = meter(choices=2)
    counted.note_content(content(usage=usage(24, 3)))
    counted.note_final(final(usage(24, 10, prompt_tokens_details={"cached_tokens": 16})))
    assert counted.usage() == Usage(24, 16, 10, "backend")


@pytest.mark.parametrize(
    "more", [{"extra": {"usage": usage(1, 1)}}, {"extra": [{"usage": usage(1, 1)}]}, {"extra": "usage"}], ids=str
)
def test_a_usage_within_something_else_is_not_the_events(more: dict[str, Any]) -> None:
    counted = meter()
    counted.note_content(content(usage=usage(24, 3), **more))
    assert counted.usage() == Usage(24, 0, 3, "backend")


@pytest.mark.parametrize(
    ("details", "cached"),
    [
        (None, 0),
        ({}, 0),
        ({"cached_tokens": 16}, 16),
        ({"cached_tokens": None}, 0),
        ({"cached_tokens": -1}, 0),
        ({"cached_tokens": 25}, 0),
        ({"cached_tokens": "16"}, 0),
        ([], 0),
    ],
)
def test_cached_tokens_are_part_of_the_prompt(details: Any, cached: int) -> None:
    counted = meter()
    counted.note_final(final(usage(24, 1, prompt_tokens_details=details)))
    assert counted.usage() == Usage(24, cached, 1, "backend")


WRONG = [
    None,
    [],
    "12",
    {},
    usage(-1, 1),
    usage(1, -1),
    usage("1", 1),
    usage(1, "1"),
    usage(None, 1),
    usage(1, None),
    usage(1.5, 1),
    usage(True, 1),
    usage(CEILING + 1, 1),
    usage(1, 10**30),
    {"completion_tokens": 1},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_running_usage_that_cannot_be_is_estimated(wrong: Any) -> None:
    counted = meter()
    for _ in range(4):
        counted.note_content(content(usage=wrong))
    assert counted.usage() == Usage(7, 0, 3, "estimated")


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_final_usage_that_cannot_be_leaves_the_running_one(wrong: Any) -> None:
    counted = meter()
    for tokens in range(3):
        counted.note_content(content(usage=usage(24, tokens)))
    counted.note_final(final(wrong))
    assert counted.usage() == Usage(24, 0, 2, "backend")


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_an_answer_with_a_usage_that_cannot_be_is_estimated(wrong: Any) -> None:
    counted = meter(choices=1)
    counted.note_answer(wrong, completion_estimate_tokens=12)
    assert counted.usage() == Usage(7, 0, 12, "estimated")


def test_an_answer_counts_as_its_backend_says() -> None:
    counted = meter()
    counted.note_answer(usage(24, 8), completion_estimate_tokens=12)
    assert counted.usage() == Usage(24, 0, 8, "backend")


def test_one_wrong_choice_makes_an_estimate_of_all() -> None:
    counted = meter(choices=2)
    for index, value in [(0, usage(24, 1)), (1, usage(24, 1)), (0, usage(24, 2)), (1, None)]:
        counted.note_content(content(index=index, usage=value))
    assert counted.usage() == Usage(7, 0, 2, "estimated")


@pytest.mark.parametrize("counts", [(5, 4), (1, 2, 3, 1)])
def test_a_count_that_falls_is_estimated(counts: tuple[int, ...]) -> None:
    running, ended = meter(), meter()
    for tokens in counts:
        running.note_content(content(usage=usage(24, tokens)))
    for tokens in counts[:-1]:
        ended.note_content(content(usage=usage(24, tokens)))
    ended.note_final(final(usage(24, counts[-1])))
    assert running.usage().source == ended.usage().source == "estimated"
    assert running.usage().completion_tokens == len(counts) - 1


@given(
    st.lists(st.binary(max_size=40) | st.builds(lambda n: content(usage=usage(n, n)), st.integers()), max_size=5),
    st.integers(1, 3),
)
def test_no_bytes_raise_or_count_below_zero(events: list[bytes], choices: int) -> None:
    counted = meter(choices=choices)
    for one in events:
        counted.note_content(one)
        counted.note_final(one)
    found = counted.usage()
    assert 0 <= found.cached_tokens <= found.prompt_tokens
    assert found.completion_tokens >= 0
