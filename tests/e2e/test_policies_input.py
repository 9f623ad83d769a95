"""Content policies on the way in, over real sockets: what is blocked reaches nobody, what is masked stays here."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import requests

from accounts.models import Tenant
from gateway.config import policies
from gateway.config.documents import CHANGES, tenant_key
from gateway.models import Backend, ContentPolicy, Deployment, ModelAlias, PoolMember
from tests import processes
from tests.e2e.conftest import BY, CHAT, Stand
from tests.e2e.test_limits import bound, limit, used
from tests.simulator import Simulator, simulator
from usage.posting import drain_journal

SECRET = "ALPHA-77"
MESSAGE = "Your request was blocked by a content policy."
KEYWORD = {"kind": "keywords", "words": [SECRET], "where": ["input"], "action": "block", "name": "code-names"}
EMAIL = {"kind": "detector", "detector": "email", "where": ["input"], "action": "redact"}


@pytest.fixture(scope="module")
def portal_url(django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with processes.portal(tmp_path_factory.mktemp("portal")) as url:
        yield url


@pytest.fixture(scope="module")
def gateway_process(portal_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with processes.gateway(folder, workers=2, SEKISHO_PORTAL_URL=portal_url) as running:
        yield running


@pytest.fixture(scope="module")
def guard() -> Iterator[Simulator]:
    """A second vLLM, which serves the guard."""
    with simulator() as running:
        yield running


def policy(
    stand: Stand, *rules: dict[str, Any], name: str = "no-secrets", tenant: Tenant | None = None, everywhere: bool = True
) -> ContentPolicy:
    """Published; in force on every worker when it returns, if it applies everywhere."""
    probe = f"probe-{name}-{ContentPolicy.objects.count()}"
    made = policies.create(tenant, name, is_everywhere=everywhere, **BY)
    mark = {"kind": "keywords", "words": [probe], "where": ["input.user"], "action": "block", "name": "probe"}
    policies.save_draft(made, [*rules, mark], **BY)
    policies.publish(made, **BY)
    if everywhere:
        await_block(stand, probe)
    return made


def await_block(stand: Stand, text: str, **options: Any) -> None:
    def is_blocked() -> bool:
        return all(stand.post(said(text), **options).status_code == 403 for _ in stand.gateway.each_worker())

    stand.until(is_blocked, "the policy did not arrive")
    stand.vllm.reset()


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def body_that_arrived(stand: Stand) -> dict[str, Any]:
    [request] = stand.vllm.requests()
    body: dict[str, Any] = request["body"]
    return body


# ---- blocked


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["openai", "detail", "both"])
def test_a_block_is_a_403_that_tells_nothing_of_the_rule(stand: Stand, dialect: str, stream: bool) -> None:
    _key, secret = stand.issue(name="speaks", error_dialect=dialect)
    policy(stand, KEYWORD, tenant=stand.acme)
    stand.until(lambda: stand.get("/v1/models", secret=secret).ok, "the key did not arrive")
    response = stand.post(said("tell me of ａｌｐｈａ－７７", stream=stream), secret=secret)
    assert response.status_code == 403
    error = {"type": "invalid_request_error", "message": MESSAGE, "code": "content_blocked", "param": None}
    expected = {"openai": {"error": error}, "detail": {"detail": MESSAGE}, "both": {"error": error, "detail": MESSAGE}}
    assert response.json() == expected[dialect]
    assert response.headers["x-should-retry"] == "false"
    assert not [name for name in response.headers if name.startswith("x-ratelimit")]
    for word in ("no-secrets", "code-names", SECRET, "keywords"):
        assert word not in response.text + str(response.headers)
    assert stand.vllm.requests() == []
    event = stand.event(response.headers["x-request-id"])
    assert (event.status, event.outcome, event.error_code, event.backend) == (403, "refused", "content_blocked", None)
    assert (event.prompt_tokens, event.completion_tokens, event.reserved_tokens, event.attempts) == (0, 0, 0, 0)


def test_a_block_touches_no_counter(stand: Stand) -> None:
    policy(stand, KEYWORD, tenant=stand.acme)
    limit(stand, tokens_per_hour=100_000, requests_per_minute=1000)
    for stream in (False, True):
        assert stand.post(said(SECRET, stream=stream)).status_code == 403
    assert len(bound(stand)) == 2
    assert set(used(stand).values()) == {(0, 0)}


def test_a_block_comes_before_the_limits(stand: Stand) -> None:
    policy(stand, KEYWORD, tenant=stand.acme)
    limit(stand, tokens_per_hour=1)
    stand.until(lambda: stand.post().status_code == 429, "the limit did not arrive")
    assert stand.post(said(SECRET)).status_code == 403


def test_the_tenants_own_record_names_the_rule_and_never_the_text(stand: Stand) -> None:
    _key, reader = stand.issue(name="reader", scopes=("chat", "usage", "usage:tenant"))
    made = policy(stand, KEYWORD, tenant=stand.acme)
    stand.until(lambda: stand.get("/v1/limits", secret=reader).ok, "the key did not arrive")
    call = stand.post(said(f"tell me of {SECRET} please"), secret=reader).headers["x-request-id"]
    stand.event(call)
    at_once = stand.get(f"/v1/requests/{call}", secret=reader).json()
    drain_journal()
    told = stand.get(f"/v1/requests/{call}", secret=reader).json()
    assert (told["status"], told["outcome"], told["error_code"]) == (403, "refused", "content_blocked")
    assert told["policy"] == [
        {
            "policy": "no-secrets", "version": 1, "rule": "code-names", "kind": "keywords", "action": "block",
            "surface": "input.user", "start": 11, "end": 19, "holder": "tenant",
        }
    ]  # fmt: skip
    assert told["policy_more"] == 0
    assert at_once == told
    total = stand.get("/v1/usage", secret=reader).json()["total"]
    assert total["blocked"] >= 1
    assert total["refused"] == 0
    assert SECRET not in "\n".join(stand.gateway.lines())
    assert made.published is not None


# Where a text may stand in a request.
PLACES: dict[str, dict[str, Any]] = {
    "input.system": {"messages": [{"role": "developer", "content": SECRET}, {"role": "user", "content": "x"}]},
    "input.user": said(SECRET),
    "input.assistant": {
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": r'{"a": "\u0041LPHA-77"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": "y"},
        ]
    },
    "input.tool": {
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": SECRET},
        ]
    },
    "input.documents": said("x", documents=[{"title": "t", "text": SECRET}]),
    "input.tool_definitions": said("x", tools=[{"type": "function", "function": {"name": "f", "description": SECRET}}]),
}


def test_every_surface_is_guarded_and_each_by_itself(stand: Stand) -> None:
    policy(
        stand, *({**KEYWORD, "where": [surface], "action": "flag", "name": surface} for surface in PLACES), tenant=stand.acme
    )
    for surface, body in PLACES.items():
        response = stand.post(body)
        assert response.status_code == 200, response.text
        event = stand.event(response.headers["x-request-id"])
        assert [(told["rule"], told["surface"], told["action"]) for told in event.policy or []] == [(surface, surface, "flag")]
    policy(stand, KEYWORD, name="second", tenant=stand.acme)
    for body in PLACES.values():
        assert stand.post(body).status_code == 403
    assert stand.vllm.requests() == []


# ---- masked


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_redacted_reaches_the_backend_masked(stand: Stand, stream: bool) -> None:
    policy(stand, EMAIL, tenant=stand.acme)
    messages = [
        {"role": "system", "content": "Write to b@example.com."},
        {"role": "user", "content": [{"type": "text", "text": "Or to a@example.com or b@example.com?"}]},
    ]
    response = stand.post({"messages": messages, "stream": stream, "max_tokens": 5})
    assert response.status_code == 200
    assert response.content
    assert [message["content"] for message in body_that_arrived(stand)["messages"]] == [
        "Write to [EMAIL_1].",
        [{"type": "text", "text": "Or to [EMAIL_2] or [EMAIL_1]?"}],
    ]
    event = stand.event(response.headers["x-request-id"])
    assert (event.outcome, event.error_code) == ("completed", None)
    assert [told["action"] for told in event.policy or []] == ["redact"] * 3
    assert event.prompt_tokens == stand.vllm.requests()[0]["prompt_tokens"]


def test_clean_calls_go_on_as_they_were(stand: Stand) -> None:
    policy(stand, KEYWORD, EMAIL, tenant=stand.acme)
    messages = [{"role": "user", "content": "こんにちは"}]
    response = stand.post({"messages": messages, "temperature": 0.5})
    assert response.status_code == 200
    assert body_that_arrived(stand)["messages"] == messages
    assert stand.event(response.headers["x-request-id"]).policy is None


# ---- whose policies apply


def test_a_policy_binds_those_who_name_it(stand: Stand) -> None:
    policy(stand, KEYWORD, tenant=stand.acme, everywhere=False)
    ModelAlias.objects.create(tenant=stand.acme, name="guarded", deployment=stand.deployment, policies=["no-secrets"])
    _key, careful = stand.issue(name="careful", policies=["no-secrets"])
    await_block(stand, SECRET, secret=careful)
    assert stand.post(said(SECRET)).status_code == 200
    stand.until(lambda: stand.post(said("x", model="guarded")).status_code == 200, "the alias did not arrive")
    assert stand.post(said(SECRET, model="guarded")).status_code == 403


def test_the_platforms_policy_binds_every_tenant(stand: Stand) -> None:
    policy(stand, KEYWORD)
    assert stand.post(said(SECRET)).status_code == 403


def test_a_policy_that_cannot_be_read_lets_nobody_pass(stand: Stand) -> None:
    policy(stand, KEYWORD, tenant=stand.acme)
    name = tenant_key(str(stand.acme.id))
    document = orjson.loads(stand.store.get(name))  # type: ignore[arg-type]
    document["policies"][0]["rules"].append({"kind": "of-tomorrow"})
    stand.store.set(name, orjson.dumps(document))
    stand.store.xadd(CHANGES, {"kind": "tenant", "id": str(stand.acme.id)})
    stand.until(lambda: all(stand.post().status_code == 503 for _ in stand.gateway.each_worker()), "calls passed")
    assert "retry-after" in stand.post().headers


def test_decisions_are_counted_by_policy_and_action(stand: Stand) -> None:
    policy(stand, {**KEYWORD, "action": "flag"}, name="counted", tenant=stand.acme)
    stand.post(said(SECRET))
    counted = 'sekisho_policy_decisions_total{action="flag",policy="counted"} 1.0'
    stand.until(lambda: counted in stand.get("/metrics").text, "the decision is not counted")
    assert SECRET not in stand.get("/metrics").text


# ---- judged by a model


@pytest.fixture
def judged(stand: Stand, guard: Simulator) -> Stand:
    """`stand` with the alias `guard`, at a backend of its own; the key `ci` may use `general` alone."""
    guard.reset()
    deployment = Deployment.objects.create(name="guard", served_model="tiny", max_model_len=8192)
    backend = Backend.objects.create(name="gpu-2", url=guard.url)
    PoolMember.objects.create(deployment=deployment, backend=backend)
    ModelAlias.objects.create(tenant=stand.acme, name="guard", deployment=deployment)
    stand.more["key"], stand.secret = stand.issue(name="narrow", aliases=["general"])
    stand.until(lambda: stand.post().ok, "the key did not arrive")
    return stand


def judge(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "judge", "alias": "guard", "where": ["input.user"], "action": "block", "timeout_ms": 10_000,
        "on_failure": "closed", "name": "kind",
    } | changes  # fmt: skip


def test_a_judge_is_asked_through_the_gateway(judged: Stand, guard: Simulator) -> None:
    policy(judged, judge(), {**EMAIL, "where": ["input"]}, tenant=judged.acme)
    guard.knobs(says="safe")
    guarded = judged.post(said("I am a@example.com"))
    assert guarded.status_code == 200, guarded.text
    [question] = guard.requests()
    assert "[EMAIL_1]" in question["body"]["messages"][1]["content"]
    assert question["body"]["temperature"] == 0
    guard.knobs(says="unsafe")
    blocked = judged.post(said("How is it done?"))
    assert (blocked.status_code, len(judged.vllm.requests())) == (403, 1)
    event = judged.event(blocked.headers["x-request-id"])
    assert [(told["rule"], told["kind"], told["action"]) for told in event.policy or []] == [("kind", "judge", "block")]
    asked = [event for event in judged.events_of_acme() if event.alias == "guard"]
    assert [event.client_request_id for event in asked] == [response.headers["x-request-id"] for response in (guarded, blocked)]
    assert {(event.key_name, event.outcome, event.policy) for event in asked} == {("narrow", "completed", None)}
    assert all(event.prompt_tokens > 0 for event in asked)
    assert judged.post(said("x", model="guard")).status_code == 404


@pytest.mark.parametrize(("on_failure", "status"), [("open", 200), ("closed", 403)])
def test_a_judge_that_does_not_answer_in_time(judged: Stand, guard: Simulator, on_failure: str, status: int) -> None:
    policy(judged, judge(timeout_ms=300, on_failure=on_failure), tenant=judged.acme)
    guard.knobs(first_token_ms=60_000)
    response = judged.post(said("How is it done?"))
    assert response.status_code == status
    event = judged.event(response.headers["x-request-id"])
    expected = ("judge", "flag" if on_failure == "open" else "block", True)
    assert [(told["kind"], told["action"], told["is_failure"]) for told in event.policy or []] == [expected]
    judged.until(lambda: not guard.metrics()["num_requests_running"], "the question went on")


def test_a_client_that_leaves_ends_the_judges_question(judged: Stand, guard: Simulator) -> None:
    policy(judged, judge(), tenant=judged.acme)
    guard.knobs(first_token_ms=60_000)
    with pytest.raises(requests.Timeout):
        requests.post(
            judged.gateway.url + CHAT,
            json={"model": "general", **said("How is it done?")},
            headers={"Authorization": f"Bearer {judged.secret}"},
            timeout=(30, 1),
        )
    judged.until(lambda: bool(guard.requests()) and guard.requests()[-1]["finished"] == "disconnect", "the question went on")
    judged.until(lambda: len(aliases_left(judged)) == 2, "the calls did not end")
    assert aliases_left(judged) == {"general", "guard"}
    assert judged.vllm.requests() == []


def aliases_left(stand: Stand) -> set[str]:
    """The aliases of the calls whose clients had left."""
    return {event.alias for event in stand.events_of_acme() if event.outcome == "client_left"}
