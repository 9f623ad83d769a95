"""vLLM's refusals reach a client in our words alone."""

from pathlib import Path

import pytest

from gateway.api.errors import body
from gateway.exceptions import ContextLengthExceeded, InvalidRequest
from gateway.upstream.refusals import in_own_words, message_of

RECORDED = Path(__file__).parents[2] / "recorded"
REFUSED = sorted(p for p in RECORDED.glob("*.resp") if p.read_bytes().startswith(b"HTTP/1.1 400"))


def recorded_body(path: Path) -> bytes:
    return path.read_bytes().split(b"\r\n\r\n", 1)[1]


def test_there_are_recordings() -> None:
    assert len(REFUSED) > 30


@pytest.mark.parametrize("path", REFUSED, ids=lambda p: p.stem)
def test_no_recorded_refusal_passes_its_own_text_on(path: Path) -> None:
    error = in_own_words(recorded_body(path))
    said = str(body(error, "both"))
    theirs = message_of(recorded_body(path))
    assert isinstance(error, InvalidRequest | ContextLengthExceeded)
    assert theirs[:40] not in said
    assert "tiny" not in said
    assert "vllm" not in said.lower()
    assert "pydantic" not in said


@pytest.mark.parametrize("name", ["err-prompt-too-long", "err-prompt-fills-context", "err-prompt-too-long-stream"])
def test_a_prompt_that_does_not_fit_names_the_limit(name: str) -> None:
    error = in_own_words(recorded_body(RECORDED / f"{name}.resp"))
    assert isinstance(error, ContextLengthExceeded)
    assert "512" in error.message
    assert error.param == "messages"


@pytest.mark.parametrize(
    ("name", "param"),
    [
        ("chat-max-tokens-too-large", "max_tokens"),
        ("chat-n2-greedy", "n"),
        ("chat-tools-auto-without-flag", "tool_choice"),
        ("chat-tools-named", "tool_choice"),
        ("chat-content-image", "messages"),
        ("chat-json-schema-bad", "response_format"),
        ("err-logit-bias-range", "logit_bias"),
        ("err-min-tokens-over-max", "min_tokens"),
    ],
)
def test_the_field_at_fault_is_named(name: str, param: str) -> None:
    error = in_own_words(recorded_body(RECORDED / f"{name}.resp"))
    assert error.param == param
    assert error.details


@pytest.mark.parametrize(
    "body_bytes",
    [b"", b"<html>", b"[]", b'"text"', b"{}", b'{"error": null}', b'{"error": {"message": 5}}', b'{"detail": [1]}', b"\xff"],
)
def test_any_other_shape_is_a_plain_refusal(body_bytes: bytes) -> None:
    assert in_own_words(body_bytes).status == 400
