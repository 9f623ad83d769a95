"""vLLM's refusals reach a client in our words alone."""

from pathlib import Path

import orjson
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
        ("chat-json-schema-bad", None),
        ("err-logit-bias-range", "logit_bias"),
        ("err-min-tokens-over-max", "min_tokens"),
        ("err-top-p-2", "top_p"),
        ("err-add-and-continue", "continue_final_message"),
    ],
)
def test_the_field_at_fault_is_named(name: str, param: str | None) -> None:
    error = in_own_words(recorded_body(RECORDED / f"{name}.resp"))
    assert error.param == param
    assert error.details


@pytest.mark.parametrize(
    "body_bytes",
    [b"", b"<html>", b"[]", b'"text"', b"{}", b'{"error": null}', b'{"error": {"message": 5}}', b'{"detail": [1]}', b"\xff"],
)
def test_any_other_shape_is_a_plain_refusal(body_bytes: bytes) -> None:
    assert in_own_words(body_bytes).status == 400


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("token_id(s) [402] in stop_token_ids contain out-of-vocab token ids. Vocabulary size: 401", "stop_token_ids"),
        ("allowed_token_ids contains out-of-vocab token id! (parameter=allowed_token_ids, value=[5000])", "allowed_token_ids"),
        ("continue_final_message and add_generation_prompt are not compatible.", "continue_final_message"),
        ("thinking_token_budget is set but reasoning_config is not configured.", "thinking_token_budget"),
        ("Too many bad words after tokenization: 300. (parameter=bad_words, value=['secret'])", "bad_words"),
        ("Something new (parameter=of_a_later_version, value=secret)", None),
    ],
)
def test_the_field_that_vllm_names_is_the_param(message: str, param: str | None) -> None:
    error = in_own_words(orjson.dumps({"error": {"message": message, "code": 400}}))
    assert error.param == param
    assert "secret" not in str(error.details)
    assert "401" not in str(error.details)


@pytest.mark.parametrize("shape", ['{"message": %s}', '{"object": "error", "message": %s, "code": 400}', '{"detail": %s}'])
def test_an_older_shape_is_understood_too(shape: str) -> None:
    error = in_own_words((shape % '"This model\'s maximum context length is 512 tokens."').encode())
    assert isinstance(error, ContextLengthExceeded)
