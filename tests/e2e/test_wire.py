"""The wire contract, over real sockets: what each request gets back, headers included."""

import gzip
import json
from typing import Any

import orjson
import pytest
import requests

from accounts import issuing
from accounts.models import Tenant
from gateway.models import Backend, Limit, ModelAlias, PoolMember
from tests.e2e.conftest import BY, CHAT, Stand, await_configuration, on_both_loops, publish

pytestmark = on_both_loops

HELLO = [{"role": "user", "content": "Hello"}]


def events(response: requests.Response) -> list[bytes]:
    return [event for event in response.content.split(b"\n\n") if event]


# ---- plain answers and streams


def test_a_plain_answer_names_the_alias_and_nothing_behind_it(stand: Stand) -> None:
    response = stand.post()
    body = response.json()
    assert response.status_code == 200
    assert (body["model"], body["object"]) == ("general", "chat.completion")
    assert body["id"] == f"chatcmpl-{response.headers['x-request-id']}"
    assert "system_fingerprint" not in body
    assert body["usage"]["total_tokens"] > 0
    assert "tiny" not in response.text
    assert "server" not in response.headers or "uvicorn" not in response.headers["server"]


def test_a_stream_has_the_contracts_headers_and_ends_with_done(stand: Stand) -> None:
    response = stand.post({"stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in response.headers
    *chunks, done = events(response)
    assert done == b"data: [DONE]"
    parsed = [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]
    assert {chunk["id"] for chunk in parsed} == {f"chatcmpl-{response.headers['x-request-id']}"}
    assert {chunk["model"] for chunk in parsed} == {"general"}
    assert all("usage" not in chunk and "system_fingerprint" not in chunk for chunk in parsed)
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("options", "last_has_usage", "all_have_usage"),
    [
        (None, False, False),
        ({"include_usage": False}, False, False),
        ({"include_usage": True}, True, False),
        ({"include_usage": True, "continuous_usage_stats": True}, True, True),
    ],
)
def test_usage_is_shown_as_asked(stand: Stand, options: Any, last_has_usage: bool, all_have_usage: bool) -> None:
    response = stand.post({"stream": True, "stream_options": options, "max_tokens": 5})
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events(response)[:-1]]
    assert (chunks[-1]["choices"] == []) is last_has_usage
    contents = chunks[:-1] if last_has_usage else chunks
    assert all(("usage" in chunk) is all_have_usage for chunk in contents)
    if last_has_usage:
        assert chunks[-1]["usage"]["completion_tokens"] == 5


def test_keep_alive_comments_bridge_a_slow_first_token(stand: Stand, fresh_gateway: Any) -> None:
    stand.gateway = fresh_gateway(SEKISHO_KEEP_ALIVE_COMMENT_S="0.2")
    stand.until(lambda: stand.get("/v1/models").status_code == 200, "not configured")
    stand.vllm.knobs(first_token_ms=1000)
    response = stand.post({"stream": True})
    assert response.status_code == 200
    assert response.content.startswith(b": keep-alive\n\n")
    assert response.content.endswith(b"data: [DONE]\n\n")


def test_n_choices_stream_interleaved_and_are_metered_in_sum(stand: Stand) -> None:
    response = stand.post({"stream": True, "n": 3, "temperature": 1, "max_tokens": 7, "ignore_eos": True})
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events(response)[:-1]]
    assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0, 1, 2}
    assert stand.event(response.headers["x-request-id"]).completion_tokens == 21


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_bare_texts_stand_among_the_parts_of_a_content(stand: Stand, role: str) -> None:
    """As vLLM takes them; also where limits want the prompt's measure and several backends the road to a warm cache."""
    second = Backend.objects.create(name="gpu-2", url=stand.vllm.url)
    PoolMember.objects.create(deployment=stand.deployment, backend=second)
    Limit.objects.create(tenant=stand.acme, name="tokens_per_day", max=1_000_000)
    publish()
    await_configuration(stand)
    message = {"role": role, "content": ["Hello", {"type": "text", "text": "there"}], "tool_call_id": "call_1"}
    for stream in (False, True):
        response = stand.post({"messages": [{"role": "user", "content": "Hi"}, message], "stream": stream})
        assert response.status_code == 200, response.text
        assert stand.vllm.requests()[-1]["body"]["messages"][-1]["content"] == message["content"]


def test_max_tokens_is_capped_by_the_alias(stand: Stand) -> None:
    ModelAlias.objects.create(tenant=stand.acme, name="short", deployment=stand.deployment, max_output_tokens=3)
    stand.until(lambda: stand.get("/v1/models/short").status_code == 200, "the alias did not arrive")
    for asked in (None, 100):
        body = stand.post({"model": "short", "max_tokens": asked, "ignore_eos": True}).json()
        assert body["usage"]["completion_tokens"] == 3


def test_what_the_backend_is_sent_is_the_gateways_own(stand: Stand) -> None:
    response = stand.post(
        {
            "user": "alice@example.com", "metadata": {"team": "ops"}, "store": True, "request_id": "mine", "priority": 5,
            "cache_salt": "salty", "unknown_field": 1, "stream_options": None, "max_completion_tokens": 4, "max_tokens": 9,
        },
        headers={"x-request-id": "client-own", "x-client-request-id": "client-own"},
    )  # fmt: skip
    assert response.status_code == 200
    assert "unknown_field" in response.headers["x-gateway-dropped-params"]
    sent = stand.vllm.requests()[-1]
    body, headers = sent["body"], {name.lower(): value for name, value in sent["headers"].items()}
    assert body["model"] == "tiny"
    assert body["max_tokens"] == 4
    assert not {"user", "metadata", "store", "request_id", "priority", "unknown_field", "max_completion_tokens"} & set(body)
    assert len(body["cache_salt"]) == 43
    assert "salty" not in json.dumps(sent)
    assert "alice" not in json.dumps(sent)
    assert "client-own" not in json.dumps(sent)
    assert headers["x-request-id"].startswith(response.headers["x-request-id"])
    assert stand.secret not in json.dumps(sent)
    event = stand.event(response.headers["x-request-id"])
    assert event.client_request_id == "client-own"
    assert event.metadata == {"team": "ops"}
    assert event.end_user
    assert "alice" not in event.end_user


def test_tenants_have_different_cache_salts_and_one_tenant_the_same(stand: Stand) -> None:
    globex = Tenant.objects.create(slug="globex", name="Globex")
    ModelAlias.objects.create(tenant=globex, name="general", deployment=stand.deployment)
    _key, theirs = stand.issue(globex, name="theirs")
    stand.until(lambda: stand.get("/v1/models", secret=theirs).status_code == 200, "globex did not arrive")
    for secret in (stand.secret, stand.secret, theirs):
        assert stand.post(secret=secret).status_code == 200
    ours, again, other = (r["body"]["cache_salt"] for r in stand.vllm.requests()[-3:])
    assert ours == again != other


# ---- bodies


def test_a_chunked_body_is_read(stand: Stand) -> None:
    body = orjson.dumps({"model": "general", "messages": HELLO})
    headers = {"Authorization": f"Bearer {stand.secret}", "Content-Type": "application/json"}
    pieces = (body[i : i + 7] for i in range(0, len(body), 7))
    assert requests.post(stand.gateway.url + CHAT, data=pieces, headers=headers, timeout=30).status_code == 200


def test_a_gzip_body_is_read(stand: Stand) -> None:
    body = gzip.compress(orjson.dumps({"model": "general", "messages": HELLO}))
    headers = {"Authorization": f"Bearer {stand.secret}", "Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert requests.post(stand.gateway.url + CHAT, data=body, headers=headers, timeout=30).status_code == 200


def test_a_body_of_megabytes_reaches_validation_and_one_over_the_limit_is_413(stand: Stand) -> None:
    large = stand.post({"messages": [{"role": "user", "content": "あ" * 1_500_000}], "temperature": 9})
    assert (large.status_code, large.json()["error"]["param"]) == (400, "temperature")
    over = stand.post({"messages": [{"role": "user", "content": "a" * 21 * 1024 * 1024}]})
    assert (over.status_code, over.json()["error"]["code"]) == (413, "request_too_large")
    assert over.headers["connection"] == "close"


# ---- the table of errors


def test_every_invalid_key_gets_the_same_401(stand: Stand) -> None:
    revoked, revoked_text = stand.issue(name="revoked")
    issuing.revoke(revoked, **BY)
    stand.until(lambda: stand.get("/v1/models", secret=revoked_text).status_code == 401, "the revocation did not arrive")
    wrong_end = stand.secret[:-1] + ("0" if stand.secret[-1] != "0" else "1")
    answers = []
    for header in (
        None, "", "Bearer", "Bearer ", "Bearer sk-none", f"Bearer {wrong_end}", f"Bearer {revoked_text}",
        f"Basic {stand.secret}", stand.secret, f"Bearer {stand.secret} x", f"Bearer {'x' * 600}", "Bearer ' OR 1=1 --",
        f"Bearer\t{stand.secret}",
    ):  # fmt: skip
        headers = {} if header is None else {"Authorization": header}
        response = requests.post(stand.gateway.url + CHAT, json={}, headers=headers, timeout=30)
        assert response.headers["www-authenticate"] == "Bearer"
        answers.append((response.status_code, response.text))
    assert set(answers) == {(401, answers[0][1])}
    assert json.loads(answers[0][1]) == {
        "error": {"type": "authentication_error", "message": "Invalid API key", "code": "invalid_api_key", "param": None},
        "detail": "Invalid API key",
    }


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_schemes_case_says_nothing(stand: Stand, scheme: str) -> None:
    """RFC 9110, 11.1."""
    headers = {"Authorization": f"{scheme} {stand.secret}"}
    assert requests.get(f"{stand.gateway.url}/v1/models", headers=headers, timeout=30).status_code == 200


def test_scope_is_asked_before_the_body_is_read(stand: Stand) -> None:
    _key, secret = stand.issue(name="models-only", scopes=["models"])
    stand.until(lambda: stand.get("/v1/models", secret=secret).status_code == 200, "the key did not arrive")
    response = requests.post(stand.gateway.url + CHAT, data=b"{", headers={"Authorization": f"Bearer {secret}"}, timeout=30)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "insufficient_scope")
    _key, chat_only = stand.issue(name="chat-only", scopes=["chat"])
    stand.until(lambda: stand.post(secret=chat_only).status_code == 200, "the key did not arrive")
    assert stand.get("/v1/models", secret=chat_only).status_code == 403


def test_an_absent_model_and_a_strangers_are_not_to_be_told_apart(stand: Stand) -> None:
    globex = Tenant.objects.create(slug="globex", name="Globex")
    ModelAlias.objects.create(tenant=globex, name="theirs", deployment=stand.deployment)
    ModelAlias.objects.create(tenant=stand.acme, name="not-for-this-key", deployment=stand.deployment)
    _key, narrow = stand.issue(name="narrow", aliases=["general"])
    stand.until(lambda: stand.post(secret=narrow).status_code == 200, "the key did not arrive")
    bodies = {stand.post({"model": m}, secret=narrow).text for m in ("theirs", "nothing", "not-for-this-key", "tiny")}
    lookups = {stand.get(f"/v1/models/{m}", secret=narrow).text for m in ("theirs", "nothing", "not-for-this-key", "tiny")}
    assert bodies == lookups
    assert len(bodies) == 1
    assert json.loads(bodies.pop())["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/chat/completions", "Did you leave out /v1?"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/embeddings", "/v1/models"),
        ("/v1/completions", "/v1/models"),
        ("/v1/responses", "/v1/models"),
        ("/admin", "/v1/models"),
        ("/v1/%2e%2e/metrics", "/v1/models"),
        ("/v1/chat/completions/../x", "/v1/models"),
    ],
)
def test_any_other_path_is_a_404_that_names_what_is_supported(stand: Stand, path: str, named: str) -> None:
    for method in ("GET", "POST"):
        response = requests.request(method, stand.gateway.url + path, timeout=30)
        assert response.status_code == 404
        assert set(response.json()) == {"error", "detail"}
        assert response.json()["error"]["code"] == "unsupported_endpoint"
        assert named in response.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods_are_405_before_the_key_is_asked_for(stand: Stand, method: str) -> None:
    response = requests.request(method, stand.gateway.url + CHAT, timeout=30)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert response.json()["error"]["code"] == "method_not_allowed"


def test_a_trailing_slash_is_served(stand: Stand) -> None:
    headers = {"Authorization": f"Bearer {stand.secret}"}
    body = {"model": "general", "messages": HELLO}
    response = requests.post(f"{stand.gateway.url}{CHAT}/", json=body, headers=headers, timeout=30, allow_redirects=False)
    assert response.status_code == 200
    assert stand.get("/v1/models/").status_code == 200


def test_accept_is_ignored(stand: Stand) -> None:
    for accept in ("text/event-stream", "application/xml", "", "*/*", "nonsense"):
        assert stand.post(headers={"Accept": accept}).status_code == 200


def test_every_answer_has_our_request_id(stand: Stand) -> None:
    ids = set()
    for response in (
        stand.post(),
        stand.post({"stream": True}),
        stand.get("/v1/models"),
        stand.get("/nothing"),
        stand.post({"n": 0}),
    ):
        ids.add(response.headers["x-request-id"])
    assert len(ids) == 5


def test_models_speak_the_callers_language(stand: Stand) -> None:
    (english,) = stand.get("/v1/models", headers={"Accept-Language": "en-US,en;q=0.9"}).json()["data"]
    (japanese,) = stand.get("/v1/models", headers={"Accept-Language": "ja,en;q=0.5"}).json()["data"]
    assert (english["display_name"], japanese["display_name"]) == ("General", "汎用")
    assert set(english) == {"id", "object", "created", "owned_by", "display_name", "description"}


def test_ids_hold_slashes_and_dots(stand: Stand) -> None:
    ModelAlias.objects.create(tenant=stand.acme, name="openai/gpt-oss-20b.v1", deployment=stand.deployment)
    stand.until(lambda: stand.get("/v1/models/openai/gpt-oss-20b.v1").status_code == 200, "the alias did not arrive")
    assert stand.get("/v1/models/openai%2Fgpt-oss-20b.v1").json()["id"] == "openai/gpt-oss-20b.v1"


# ---- CORS


def test_cors_is_the_tenants_own_list(stand: Stand) -> None:
    headers = {"Origin": "https://app.acme.test"}
    assert "access-control-allow-origin" not in stand.post(headers=headers).headers
    stand.acme.cors_origins = ["https://app.acme.test"]
    stand.acme.save()
    stand.until(lambda: "access-control-allow-origin" in stand.post(headers=headers).headers, "the origins did not arrive")
    preflight = requests.options(
        stand.gateway.url + CHAT,
        headers=headers
        | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-stainless-os"},
        timeout=30,
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://app.acme.test"
    assert preflight.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    assert "access-control-allow-credentials" not in preflight.headers
    assert "access-control-allow-origin" in stand.post({"stream": True}, headers=headers).headers
    assert "access-control-allow-origin" in stand.post({"n": 0}, headers=headers).headers
    assert "x-request-id" in stand.post(headers=headers).headers["access-control-expose-headers"]
    foreign = requests.options(stand.gateway.url + CHAT, headers={"Origin": "https://evil.test"}, timeout=30)
    assert "access-control-allow-origin" not in foreign.headers


# ---- operations


def test_health_answers_as_vllms_does(stand: Stand) -> None:
    response = requests.get(f"{stand.gateway.url}/health", timeout=30)
    assert (response.status_code, response.content) == (200, b"")
    assert requests.get(f"{stand.gateway.url}/readyz", timeout=30).status_code == 200


def test_metrics_count_calls_and_are_for_operators_alone(stand: Stand, fresh_gateway: Any) -> None:
    assert stand.post().status_code == 200
    counted = 'sekisho_calls_total{alias="general",outcome="completed",status="200",tenant="acme"}'
    # A worker tells the others some times a second.
    stand.until(lambda: counted in requests.get(f"{stand.gateway.url}/metrics", timeout=30).text, "the call is not counted")
    closed = fresh_gateway(SEKISHO_OPERATOR_NETWORKS="192.0.2.0/24")
    assert requests.get(f"{closed.url}/metrics", timeout=30).status_code == 404
