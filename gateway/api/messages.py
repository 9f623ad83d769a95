"""Checks of `messages`: roles, contents, content parts, tool calls; and what media among them need a grant for. Pure.

Sources: OpenAI's chat reference; vLLM 0.32 `entrypoints/chat_utils.py`, whose reading of a part decides what is safe.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.api.checks import (
    BOOLEAN,
    FINE,
    TEXT,
    Check,
    Problem,
    Problems,
    by_type,
    list_of,
    matching,
    one_of,
    record,
    scalar,
    string,
)
from gateway.api.constraints import CALL_ID, CALLED_FUNCTION, TOOL_CALLS, TOOLS

MAX_MESSAGES: Final = 4_096
MAX_PARTS: Final = 1_024  # of one message

# ---- content parts

# The start of the data is enough to tell what is no base64: the backend decodes the whole of it.
_DATA: Final = r";base64,(?:[A-Za-z0-9+/]{256}|[A-Za-z0-9+/]{2,255}={0,2}\Z)"
_DATA_URL: Final = re.compile(rf"data:[a-z0-9.+-]{{1,64}}/[a-z0-9.+-]{{1,128}}{_DATA}", re.ASCII | re.IGNORECASE)
# No user info, no backslash, no blanks: URL parsers disagree about these, and so about the host.
_REMOTE_URL: Final = re.compile(r"https?://[^\s\\@/?#\x00-\x1f\x7f]+(?:[/?#][^\s\\\x00-\x1f\x7f]*)?", re.ASCII)
_REMOTE_URL_MAX_CHARS: Final = 8_192


def _url_of(kind: str) -> Check:
    """A link to media of a kind: image, audio or video. Its data: URL may leave the subtype out; vLLM does not look at it."""
    data_url = re.compile(rf"data:{kind}(?:/[a-z0-9.+-]{{1,128}})?{_DATA}", re.ASCII | re.IGNORECASE)

    def accepts(value: Any) -> bool:
        if type(value) is not str:
            return False
        if value.startswith("data:"):
            return data_url.match(value) is not None
        return len(value) <= _REMOTE_URL_MAX_CHARS and _REMOTE_URL.fullmatch(value) is not None

    return scalar(accepts, f"a base64 data:{kind}/ URL or an http(s) URL", {"type": "string", "format": "uri"})


def _is_file_data(value: Any) -> bool:
    return type(value) is str and (":" not in value[:64] or _DATA_URL.match(value) is not None)


_URLS: Final = {f"{kind}_url": _url_of(kind) for kind in ("image", "audio", "video")}
_LINKS: Final = {name: record({"url": url}, required=("url",)) for name, url in _URLS.items()}
_IMAGE: Final = record({"url": _URLS["image_url"], "detail": one_of("auto", "low", "high", "original")}, required=("url",))
_AUDIO_FORMAT: Final = matching(re.compile(r"[a-z0-9.+-]{1,32}", re.ASCII), "the name of an audio format")
_AUDIO: Final = record({"data": TEXT, "format": _AUDIO_FORMAT}, required=("data", "format"))
_FILE_DATA: Final = scalar(_is_file_data, "base64 or a base64 data: URL", {"type": "string"})
_FILE: Final = record({"file_data": _FILE_DATA, "file_id": string(256), "filename": string(1_024)})
_TENSORS: Final = by_type({str: TEXT, dict: scalar(lambda _: True, "an object of tensors", {"type": "object"})})


def _part(**members: Check) -> Check:
    return record(members, required=tuple(members))


_PARTS: Final[Mapping[str, Check]] = {
    "text": _part(text=TEXT),
    "refusal": _part(refusal=TEXT),
    "thinking": record({"thinking": TEXT, "closed": BOOLEAN}, required=("thinking",)),
    "image_url": _part(image_url=_IMAGE),
    "audio_url": _part(audio_url=_LINKS["audio_url"]),
    "video_url": _part(video_url=_LINKS["video_url"]),
    "input_audio": _part(input_audio=_AUDIO),
    "file": _part(file=_FILE),
    "tool_reference": _part(name=string(256, min_chars=1)),
    "image_embeds": _part(image_embeds=_TENSORS),
    "audio_embeds": _part(audio_embeds=_TENSORS),
    "video_embeds": _part(video_embeds=_TENSORS),
    "prompt_embeds": _part(data=TEXT),
}
_UNTYPED_PARTS: Final[Mapping[str, Check]] = {
    name: record({name: by_type({str: url, dict: _LINKS[name]})}, required=(name,)) for name, url in _URLS.items()
}
# Where vLLM may look for media: with a `uuid` it goes by these names and not by `type`, so a text part with an image_url
# would fetch that URL.
_WITHOUT_MEDIA: Final = frozenset({"text", "refusal", "thinking", "file"})
_MEDIA_MEMBERS: Final = frozenset({*_PARTS, "image_pil"} - _WITHOUT_MEDIA)

_NOT_A_PART: Final[Problems] = (("", "must be an object with a type, or a string."),)
_UNKNOWN_PART: Final[Problems] = ((".type", f"must be {' or '.join(_PARTS)}."),)


def _find_in_part(part: Any) -> Problems:
    if type(part) is str:  # vLLM takes bare strings among the parts
        return FINE
    if type(part) is not dict:
        return _NOT_A_PART
    kind, checks = part.get("type"), _PARTS
    if kind == "text" and len(part) == 2 and type(part.get("text")) is str:
        return FINE
    if kind is None:
        kind, checks = next((name for name in _UNTYPED_PARTS if name in part), None), _UNTYPED_PARTS
    check = checks.get(kind) if type(kind) is str else None
    if check is None:
        return _UNKNOWN_PART
    if len(part) > 2:  # beside its type and what that type requires
        strangers = [name for name in part if name != kind and name in _MEDIA_MEMBERS and part[name] is not None]
        if strangers:
            return [(f".{name}", "does not belong to a part of this type.") for name in strangers]
    return check.find(part)


_PART: Final = Check(_find_in_part, "a content part", {"anyOf": [{"type": "string"}, {"type": "object"}]})
CONTENT: Final = by_type({str: TEXT, list: list_of(_PART, MAX_PARTS)})

# ---- messages

_NAME: Final = string(256)
_SPEAKER: Final = record({"content": CONTENT, "name": _NAME, "tools": TOOLS, "task": TEXT}, required=("content",))
_TOOL: Final = record({"content": CONTENT, "tool_call_id": CALL_ID, "name": _NAME}, required=("content",))
_FUNCTION: Final = record({"content": CONTENT, "name": _NAME}, required=("name",))
_ASSISTANT: Final = record(  # no content and no calls: vLLM takes an empty answer so, though OpenAI does not
    {
        "content": CONTENT,
        "name": _NAME,
        "refusal": TEXT,
        "reasoning": TEXT,
        "reasoning_content": TEXT,
        "audio": record({"id": string(256)}),
        "tool_calls": TOOL_CALLS,
        "function_call": CALLED_FUNCTION,
    }
)
_OF_ROLE: Final = {"assistant": _ASSISTANT.find, "tool": _TOOL.find, "function": _FUNCTION.find}
_SPEAKERS: Final = frozenset({"system", "developer", "user", "assistant"})
_ROLES: Final = _SPEAKERS | _OF_ROLE.keys()
_ROLE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)  # vLLM hands any role to the model's template

_NOT_A_MESSAGE: Final[Problems] = (("", "must be an object."),)
_BAD_ROLE: Final[Problem] = (
    ".role",
    "must be developer, system, user, assistant, tool, function, or a name of the model's own of 1 to 64 characters.",
)


def _find_in_message(message: Any) -> Problems:
    if type(message) is not dict:
        return _NOT_A_MESSAGE
    role = message.get("role")
    if type(role) is not str or not (role in _ROLES or _ROLE.fullmatch(role)):
        return (_BAD_ROLE,)
    if len(message) == 2 and type(message.get("content")) is str and role in _SPEAKERS:
        return FINE  # almost every message there is
    return _OF_ROLE.get(role, _SPEAKER.find)(message)


_MESSAGE: Final = Check(
    _find_in_message,
    "a message",
    {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string", "pattern": f"^{_ROLE.pattern}$", "examples": ["developer", "user", "assistant", "tool"]},
            "content": {"anyOf": [CONTENT.schema, {"type": "null"}]},
            "name": _NAME.schema,
            "tool_calls": TOOL_CALLS.schema,
            "tool_call_id": {"type": "string"},
        },
    },
)
MESSAGES: Final = list_of(_MESSAGE, MAX_MESSAGES, min_items=1)


def without_nulls(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Checked messages as vLLM wants them: clients write null for what they leave out, which it takes for content alone."""
    return [_without_nulls(message) if None in message.values() else message for message in messages]


def _without_nulls(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in message.items() if value is not None or name == "content"}


# ---- grants

REMOTE_MEDIA: Final = "remote_media"  # the backend fetches a URL of the client's: a way into the network it stands in
MEDIA_UUID: Final = "media_uuid"  # names an entry of the backend's media cache, which all tenants share
EMBEDS: Final = "embeds"  # tensors that the backend deserialises (CVE-2025-62164)
MEDIA_GRANTS: Final = frozenset({REMOTE_MEDIA, MEDIA_UUID, EMBEDS})


def media_grants(messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The grants that checked messages need of the alias, each with the path of the first part that needs it."""
    needed: dict[str, str] = {}
    for index, message in enumerate(messages):
        content = message.get("content")
        if type(content) is list:
            for position, part in enumerate(content):
                if type(part) is dict and ("uuid" in part or part.get("type") not in _WITHOUT_MEDIA):
                    for grant in _grants_of_part(part):
                        needed.setdefault(grant, f"messages[{index}].content[{position}]")
    return needed


def _grants_of_part(part: Mapping[str, Any]) -> list[str]:
    links = (part.get(name) for name in _UNTYPED_PARTS)
    urls = (link.get("url") if type(link) is dict else link for link in links)
    grants = [REMOTE_MEDIA] if any(type(url) is str and not url.startswith("data:") for url in urls) else []
    if part.get("uuid") is not None:
        grants.append(MEDIA_UUID)
    if str(part.get("type")).endswith("_embeds"):
        grants.append(EMBEDS)
    return grants
