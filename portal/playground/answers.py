"""What stands in the bytes of an answer, whole or streamed: for pages that are served without JavaScript. No I/O."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

SHOWN_MAX_CHARACTERS: Final = 200_000  # of the raw answer


@dataclass(frozen=True, slots=True)
class Answer:
    """As the gateway gave it. raw: the body, as text. text: what the model said. error: the error object, None without one.

    is_whole: it came to its end.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]]
    raw: str
    text: str = ""
    reasoning: str = ""
    finish: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    is_whole: bool = True

    @property
    def is_error(self) -> bool:
        return self.status >= 400 or self.error is not None

    @property
    def problem(self) -> str:
        """What the error says, and of which fields."""
        if self.error is None:
            return ""
        details = self.error.get("details") or ()
        return " ".join([str(self.error.get("message", "")), *(f"{one.get('param')}: {one.get('message')}" for one in details)])

    @property
    def request_id(self) -> str:
        return next((value for name, value in self.headers if name == "x-request-id"), "")


def read(status: int, reason: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
    raw = body.decode("utf-8", "replace")
    kind = next((value for name, value in headers if name == "content-type"), "")
    is_stream = kind.startswith("text/event-stream")
    texts: list[str] = []
    reasonings: list[str] = []
    finish, error = "", None
    usage: dict[str, Any] = {}
    for value in _events(raw) if is_stream else _one(raw):
        if isinstance(value.get("error"), dict):
            error = value["error"]
        elif isinstance(value.get("detail"), str):
            error = {"message": value["detail"]}
        usage = value.get("usage") or usage
        for choice in value.get("choices") or ():
            said = choice.get("delta") or choice.get("message") or {}
            texts.append(said.get("content") or "")
            reasonings.append(said.get("reasoning") or said.get("reasoning_content") or "")
            finish = choice.get("finish_reason") or finish
    return Answer(
        status, reason, headers, raw[:SHOWN_MAX_CHARACTERS], "".join(texts), "".join(reasonings), finish, usage, error,
        is_whole=not is_stream or "data: [DONE]" in raw[-64:],
    )  # fmt: skip


def _one(raw: str) -> Iterator[dict[str, Any]]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return
    if isinstance(value, dict):
        yield value


def _events(raw: str) -> Iterator[dict[str, Any]]:
    for line in raw.splitlines():
        if line.startswith("data: "):
            yield from _one(line.removeprefix("data: "))
