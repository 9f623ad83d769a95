"""A ten-second test of a running installation from outside, as a client of /v1 sees it. Knows no Django.

Each check is one call and what must be true of its answer; it returns a word for the table or raises Wrong.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import requests

TIMEOUT_S: Final = (3.0, 60.0)  # connect; a real model may take long for its first token
TOKENS: Final = 8


class Wrong(Exception):
    """What the answer was, where it should have been another."""


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    is_good: bool
    detail: str
    took_ms: int


@dataclass(slots=True)
class Client:
    """base_url: the gateway without /v1. model: the first of /v1/models, once that was asked."""

    base_url: str
    key: str = field(repr=False)
    model: str = ""
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, *, key: str | None = None, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {key or self.key}", **options.pop("headers", {})}
        try:
            return self.session.request(method, self.base_url + path, headers=headers, timeout=TIMEOUT_S, **options)
        except requests.RequestException as error:
            raise Wrong(f"no answer: {type(error).__name__}") from error

    def chat(self, *, stream: bool = False, **more: Any) -> requests.Response:
        body = {"model": self.model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": TOKENS}
        return self.call("POST", "/v1/chat/completions", json={**body, "stream": stream, **more}, stream=stream)


def run(base_url: str, key: str) -> Iterator[Result]:
    """Every check in turn; a later one does not depend on an earlier, but for the model's name."""
    client = Client(base_url.rstrip("/").removesuffix("/v1"), key)
    client.session.trust_env = False  # a proxy of the environment would answer in the gateway's place
    with client.session:
        for name, check in CHECKS:
            start = time.monotonic()
            try:
                is_good, detail = True, check(client)
            except Wrong as wrong:
                is_good, detail = False, str(wrong)
            except (KeyError, TypeError, ValueError) as error:
                is_good, detail = False, f"not the expected form ({type(error).__name__})"
            yield Result(name, is_good, detail, round((time.monotonic() - start) * 1000))


def _health(client: Client) -> str:
    _expect(client.call("GET", "/health"), 200)
    return "200"


def _models(client: Client) -> str:
    names = [model["id"] for model in _json(_expect(client.call("GET", "/v1/models"), 200))["data"]]
    if not names:
        raise Wrong("this key may use no model")
    client.model = names[0]
    return ", ".join(names)


def _chat(client: Client) -> str:
    answer = _json(_expect(client.chat(), 200))
    if answer.get("model") != client.model:
        raise Wrong(f"answered in the name of {answer.get('model')!r}, not of the alias")
    return f"{answer['usage']['completion_tokens']} tokens"


def _stream(client: Client) -> str:
    start = time.monotonic()
    first_ms, events = None, []
    for event in _events(client.chat(stream=True)):
        first_ms = first_ms or round((time.monotonic() - start) * 1000)
        events.append(event)
    if not events or events[-1] != "[DONE]":
        raise Wrong("the stream does not end with [DONE]")
    return f"first event after {first_ms} ms, {len(events)} in all"


def _usage_asked(client: Client) -> str:
    chunks = _chunks(client.chat(stream=True, stream_options={"include_usage": True}))
    if not chunks or not chunks[-1].get("usage") or chunks[-1]["choices"]:
        raise Wrong("no usage chunk before [DONE]")
    return f"{chunks[-1]['usage']['total_tokens']} tokens"


def _usage_not_asked(client: Client) -> str:
    if any(chunk.get("usage") for chunk in _chunks(client.chat(stream=True))):
        raise Wrong("usage is shown to a client that did not ask")
    return "hidden"


def _bad_key(client: Client) -> str:
    answer = _expect(client.call("GET", "/v1/models", key="sk-sekisho-nobody"), 401, "invalid_api_key")
    if answer.headers.get("WWW-Authenticate") != "Bearer":
        raise Wrong("no WWW-Authenticate: Bearer")
    return "401 invalid_api_key"


def _unknown_model(client: Client) -> str:
    answer = client.chat(model="no-such-model")
    # Tenants that speak the `detail` dialect hear 400, by contract.
    _expect(answer, 400 if "error" not in _json(answer) else 404)
    return str(answer.status_code)


def _malformed(client: Client) -> str:
    _expect(client.call("POST", "/v1/chat/completions", data=b'{"model": ', headers={"Content-Type": "application/json"}), 400)
    return "400"


def _wrong_method(client: Client) -> str:
    _expect(client.call("GET", "/v1/chat/completions"), 405)
    _expect(client.call("HEAD", "/v1/chat/completions"), 405)
    return "405"


def _unsupported(client: Client) -> str:
    _expect(client.call("GET", "/v1/no-such-endpoint"), 404, "unsupported_endpoint")
    return "404 unsupported_endpoint"


def _foreign_origin(client: Client) -> str:
    answer = client.call("GET", "/v1/models", headers={"Origin": "https://stranger.invalid"})
    if "Access-Control-Allow-Origin" in answer.headers:
        raise Wrong("a foreign origin is allowed")
    return "not allowed"


CHECKS: Final[tuple[tuple[str, Callable[[Client], str]], ...]] = (
    ("health", _health),
    ("models", _models),
    ("chat", _chat),
    ("stream", _stream),
    ("usage when asked", _usage_asked),
    ("usage when not asked", _usage_not_asked),
    ("bad key", _bad_key),
    ("unknown model", _unknown_model),
    ("malformed body", _malformed),
    ("wrong method", _wrong_method),
    ("unknown endpoint", _unsupported),
    ("foreign origin", _foreign_origin),
)


def _expect(answer: requests.Response, status: int, code: str | None = None) -> requests.Response:
    if answer.status_code != status:
        raise Wrong(f"status {answer.status_code}, not {status}")
    if "x-request-id" not in answer.headers:
        raise Wrong("no x-request-id")
    if code is not None and _json(answer).get("error", {}).get("code") != code:
        raise Wrong(f"not the code {code}")
    return answer


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except requests.RequestException as error:
        raise Wrong(f"status {answer.status_code}, and no JSON") from error
    if not isinstance(body, dict):
        raise Wrong("JSON, but no object")
    return body


def _events(answer: requests.Response) -> Iterator[str]:
    with _expect(answer, 200):
        if not answer.headers["Content-Type"].startswith("text/event-stream"):
            raise Wrong(f"a stream of {answer.headers['Content-Type']}")
        try:
            for line in answer.iter_lines():
                if line.startswith(b"data: "):
                    yield line[6:].decode()
        except requests.RequestException as error:
            raise Wrong(f"the stream was cut: {type(error).__name__}") from error


def _chunks(answer: requests.Response) -> list[dict[str, Any]]:
    return [json.loads(event) for event in _events(answer) if event != "[DONE]"]
