"""What a backend's answers mean."""

from typing import Any

import orjson
import pytest

from gateway.routing.verdicts import Answer, Findings, Verdict, judge
from gateway.upstream.errors import UpstreamCut, UpstreamError, UpstreamGarbage, UpstreamRefused, UpstreamSilence

NOW_S = 1_800_000_000.0
WELL = Answer(200, b"")
TINY = frozenset({"tiny"})


def models(*cards: dict[str, Any]) -> Answer:
    return Answer(200, orjson.dumps({"object": "list", "data": list(cards)}))


def metrics(running: int = 0, tokens: int = 0) -> Answer:
    return Answer(200, b"vllm:num_requests_running %d\nvllm:generation_tokens_total %d\n" % (running, tokens))


def judged(
    findings: Findings, expected: frozenset[str] = TINY, previous: Verdict | None = None, now_s: float = NOW_S
) -> Verdict:
    verdict = judge(findings, expected, previous=previous, now_s=now_s)
    assert Verdict.from_dict(orjson.loads(orjson.dumps(verdict.to_dict()))) == verdict
    return verdict


def test_backend_that_answers_and_serves_what_it_should_is_well() -> None:
    verdict = judged(Findings(WELL, models({"id": "tiny", "max_model_len": 8192}), metrics(running=3)))
    assert verdict.problem is None
    assert (verdict.models, verdict.max_model_len) == (("tiny",), 8192)
    assert verdict.load is not None
    assert verdict.load.running == 3


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        (Answer(503, b""), "unhealthy"),
        (Answer(404, b""), "unhealthy"),
        (UpstreamRefused("ConnectionRefusedError"), "refused"),
        (UpstreamSilence("no byte in time"), "silent"),
        (UpstreamCut("ended"), "cut"),
        (UpstreamGarbage("no HTTP"), "garbage"),
    ],
)
def test_backend_whose_health_is_anything_but_200_is_out(health: Answer | UpstreamError, reason: str) -> None:
    problem = judged(Findings(health)).problem
    assert problem is not None
    assert problem.reason == reason


def test_wrong_model_is_a_problem_that_names_both() -> None:
    problem = judged(Findings(WELL, models({"id": "other", "max_model_len": 8192}), metrics())).problem
    assert problem is not None
    assert (problem.reason, problem.text) == ("wrong_model", "serves 'other', not 'tiny'")


def test_one_of_the_expected_models_is_enough() -> None:
    verdict = judged(Findings(WELL, models({"id": "tiny"})), expected=frozenset({"tiny", "big"}))
    assert verdict.problem is None
    assert verdict.models == ("tiny",)


def test_backend_of_no_deployment_may_serve_anything() -> None:
    assert judged(Findings(WELL, models({"id": "other"})), expected=frozenset()).problem is None


def test_credential_that_is_not_accepted_is_a_problem() -> None:
    problem = judged(Findings(WELL, Answer(401, b'{"error":"Unauthorized"}'))).problem
    assert problem is not None
    assert problem.reason == "credential"


@pytest.mark.parametrize("answer", [None, Answer(404, b"{}"), Answer(500, b""), Answer(200, b"<html>"), Answer(200, b"[]")])
def test_models_that_cannot_be_read_are_held_against_nobody_and_the_last_ones_stand(answer: Answer | None) -> None:
    before = judged(Findings(WELL, models({"id": "tiny", "max_model_len": 8192})))
    verdict = judged(Findings(WELL, answer), previous=before)
    assert verdict.problem is None
    assert (verdict.models, verdict.max_model_len) == (("tiny",), 8192)
    assert judged(Findings(WELL, answer)).models is None


def test_context_is_that_of_the_model_in_use_and_an_adapter_has_its_servers() -> None:
    cards = ({"id": "base", "max_model_len": 4096}, {"id": "tiny", "max_model_len": None}, {"id": "big", "max_model_len": 9})
    assert judged(Findings(WELL, models(*cards)), expected=frozenset({"big"})).max_model_len == 9
    assert judged(Findings(WELL, models(*cards))).max_model_len == 4096
    assert judged(Findings(WELL, models({"id": "tiny"}))).max_model_len is None


def test_gauges_that_cannot_be_read_are_held_against_nobody() -> None:
    for answer in (None, Answer(404, b""), Answer(200, b"")):
        verdict = judged(Findings(WELL, models({"id": "tiny"}), answer))
        assert (verdict.problem, verdict.load, verdict.moved_at_s) == (None, None, None)


def test_gauges_move_when_any_of_them_changes() -> None:
    first = judged(Findings(WELL, None, metrics(1, tokens=5)))
    still = judged(Findings(WELL, None, metrics(1, tokens=5)), previous=first, now_s=NOW_S + 4)
    moved = judged(Findings(WELL, None, metrics(1, tokens=6)), previous=still, now_s=NOW_S + 5)
    assert (first.moved_at_s, still.moved_at_s, moved.moved_at_s) == (NOW_S, NOW_S, NOW_S + 5)
