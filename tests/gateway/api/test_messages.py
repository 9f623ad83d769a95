"""Messages: roles, contents, parts, tool calls, and what media need a grant for."""

from typing import Any

import pytest

from gateway.api.messages import MESSAGES, media_grants, without_nulls

PIXEL = "data:image/png;base64,AAAA"
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def places(*messages: Any) -> list[str]:
    return [where for where, _ in MESSAGES.find(list(messages))]


GOOD: dict[str, list[Any]] = {
    "a question": [{"role": "user", "content": "hi"}],
    "an empty text": [{"role": "user", "content": ""}],
    "a name": [{"role": "user", "content": "hi", "name": name} for name in ("bob", "")],
    "no parts": [{"role": "user", "content": []}, {"role": "tool", "tool_call_id": "call_1", "content": []}],
    "an answer of nothing": [
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [], "reasoning": None},
        {"role": "assistant"},
    ],
    "null for what is left out": [{"role": "user", "content": "hi", "name": None, "tool_calls": None}],
    "members of a later schema": [{"role": "user", "content": "hi", "weight": 1}],
    "every role": [{"role": role, "content": "x"} for role in ("developer", "system", "user", "assistant", "critic-2.b_C")],
    "developer with tools": [{"role": "developer", "content": "x", "tools": [{"function": {"name": "f"}}]}],
    "parts": [
        user({"type": "text", "text": "a"}, "bare", {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}})
    ],
    "media left null": [user({"type": "text", "text": "a", "image_url": None, "input_audio": None})],
    "an image": [user({"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}})],
    "a remote image": [user({"type": "image_url", "image_url": {"url": "https://example.com/a.png?b=c@d#e"}})],
    "an image without type": [user({"image_url": PIXEL}), user({"image_url": {"url": PIXEL}})],
    "sound": [
        user(
            {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,AAAA"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        )
    ],
    "a film": [user({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}})],
    "a file": [
        user({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}),
        user({"type": "file", "file": {"file_data": "AAAA"}}),
    ],
    "an answer": [{"role": "assistant", "content": "x", "refusal": None, "annotations": [], "audio": None, "reasoning": "r"}],
    "answer parts": [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "closed": True},
                {"type": "refusal", "refusal": "no"},
                {"type": "text", "text": "x"},
            ],
        }
    ],
    "calls whose arguments hold many brackets": [
        {
            "role": "assistant",
            "tool_calls": [{**CALL, "function": {"name": "f", "arguments": '{"a":' + "[]," * 512 + '"' + "{" * 512}}],
        }
    ],
    "calls without content": [{"role": "assistant", "content": None, "tool_calls": [CALL]}],
    "calls with content left out": [{"role": "assistant", "tool_calls": [CALL, CALL]}],
    "content beside no calls": [{"role": "assistant", "content": "x", "tool_calls": []}],
    "reasoning alone": [{"role": "assistant", "content": None, "reasoning_content": "r"}],
    "the old kind of call": [{"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}],
    "a tool's result": [
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "tool_reference", "name": "f"}]},
        {"role": "tool", "tool_call_id": "x" * 4_096, "content": ""},
        {"role": "tool", "content": "sunny"},
    ],
    "a function's result": [
        {"role": "function", "name": "f", "content": "x"},
        {"role": "function", "name": "f", "content": None},
    ],
}


@pytest.mark.parametrize("messages", GOOD.values(), ids=GOOD)
def test_good_messages_pass(messages: list[Any]) -> None:
    assert list(MESSAGES.find(messages)) == []


BAD: dict[str, tuple[Any, str]] = {
    "no object": ("hi", "[0]"),
    "null": (None, "[0]"),
    "a list": ([], "[0]"),
    "no role": ({"content": "x"}, "[0].role"),
    "an empty role": ({"role": "", "content": "x"}, "[0].role"),
    "a role of another type": ({"role": ["user"], "content": "x"}, "[0].role"),
    "a role with a line break": ({"role": "user\n", "content": "x"}, "[0].role"),
    "a long role": ({"role": "x" * 65, "content": "x"}, "[0].role"),
    "no content": ({"role": "user"}, "[0].content"),
    "content null": ({"role": "user", "content": None}, "[0].content"),
    "content null in an unknown role": ({"role": "critic", "content": None}, "[0].content"),
    "content a number": ({"role": "user", "content": 5}, "[0].content"),
    "content an object": ({"role": "user", "content": {"type": "text", "text": "x"}}, "[0].content"),
    "too many parts": (user(*["x"] * 1_025), "[0].content"),
    "a part of another type": (user(5), "[0].content[0]"),
    "a part null": (user(None), "[0].content[0]"),
    "a part without type": (user({"text": "x"}), "[0].content[0].type"),
    "an unknown part": (user("x", {"type": "hologram"}), "[0].content[1].type"),
    "a part's type of another type": (user({"type": {}}), "[0].content[0].type"),
    "a Responses part": (user({"type": "input_image", "image_url": PIXEL}), "[0].content[0].type"),
    "text of another type": (user({"type": "text", "text": ["x"]}), "[0].content[0].text"),
    "text left out": (user({"type": "text"}), "[0].content[0].text"),
    "no image": (user({"type": "image_url"}), "[0].content[0].image_url"),
    "an image null": (user({"type": "image_url", "image_url": None}), "[0].content[0].image_url"),
    "an image without URL": (user({"type": "image_url", "image_url": {}}), "[0].content[0].image_url.url"),
    "an unknown detail": (
        user({"type": "image_url", "image_url": {"url": PIXEL, "detail": 1}}),
        "[0].content[0].image_url.detail",
    ),
    "a format that ends the header": (
        user({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav;base64,"}}),
        "[0].content[0].input_audio.format",
    ),
    "a file by URL": (user({"type": "file", "file": {"file_data": "http://a/b"}}), "[0].content[0].file.file_data"),
    "a name of another type": ({"role": "user", "content": "x", "name": 5}, "[0].name"),
    "reasoning of another type": ({"role": "assistant", "content": "x", "reasoning": {}}, "[0].reasoning"),
    "calls no list": ({"role": "assistant", "tool_calls": CALL}, "[0].tool_calls"),
    "too many calls": ({"role": "assistant", "tool_calls": [CALL] * 513}, "[0].tool_calls"),
    "a call without id": ({"role": "assistant", "tool_calls": [{**CALL, "id": None}]}, "[0].tool_calls[0].id"),
    "a custom call": ({"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}, "[0].tool_calls[0].type"),
    "a call without type": (
        {"role": "assistant", "tool_calls": [{"id": "a", "function": CALL["function"]}]},
        "[0].tool_calls[0].type",
    ),
    "a call of nothing": ({"role": "assistant", "tool_calls": [{"id": "a", "type": "function"}]}, "[0].tool_calls[0].function"),
    "a call with an endless id": ({"role": "assistant", "tool_calls": [{**CALL, "id": "x" * 4_097}]}, "[0].tool_calls[0].id"),
    "arguments nested without end": (
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": '{"a":' + "[" * 512}}]},
        "[0].tool_calls[0].function.arguments",
    ),
    "arguments as an object": (
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]},
        "[0].tool_calls[0].function.arguments",
    ),
    "a result of a numbered call": ({"role": "tool", "content": "x", "tool_call_id": 1}, "[0].tool_call_id"),
    "a result of nothing": ({"role": "tool", "tool_call_id": "a"}, "[0].content"),
    "a nameless function": ({"role": "function", "content": "x"}, "[0].name"),
}


@pytest.mark.parametrize(("message", "place"), BAD.values(), ids=BAD)
def test_bad_message_is_told_by_its_place(message: Any, place: str) -> None:
    assert places(message) == [place]


def test_place_counts_messages_and_parts() -> None:
    assert places({"role": "user", "content": "x"}, user("a", {"type": "text", "text": 1})) == ["[1].content[1].text"]


def test_4096_messages_pass_and_one_more_does_not() -> None:
    message = {"role": "user", "content": "x"}
    assert places(*[message] * 4_096) == []
    assert places(*[message] * 4_097) == [""]
    assert places() == [""]


def test_ten_bad_messages_are_enough_to_tell() -> None:
    assert len(places(*[5] * 4_096)) == 10


# ---- media

REFUSED_URLS = [
    "",
    "http://",
    "https:///x",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://a/b",
    "gopher://a:6379/_x",
    "//a/b",
    "a.png",
    " http://a/b",
    "http://a b/c",
    "http://a/b\n",
    "http://a\t/b",
    "http://127.0.0.1:6666\\@1.1.1.1/",
    "http://user:pass@a/b",
    "http://a@b/c",
    "HTTP://a/b",
    "javascript:alert(1)",
    "data:",
    "data:,x",
    "data:image/png,AAAA",
    "data:image/png;base64",
    "data:text/html;charset=utf-8;base64,AAAA",
    "data:text/html;base64,PHNjcmlwdD4=",
    "data:image/png;base64,",
    "data:image/png;base64,http://127.0.0.1/",
    "data:image/png;base64,%41%41",
    "data:" + "a" * 100_000,
    "DATA:image/png;base64,AAAA",
    "http://" + "a" * 8_192,
]


@pytest.mark.parametrize("url", REFUSED_URLS)
@pytest.mark.parametrize("kind", ["image_url", "audio_url", "video_url"])
def test_url_that_is_neither_data_nor_plain_http_is_refused(kind: str, url: str) -> None:
    assert places(user({"type": kind, kind: {"url": url}})) == [f"[0].content[0].{kind}.url"]
    assert places(user({kind: url})) == [f"[0].content[0].{kind}"]


@pytest.mark.parametrize("data", ["AA==", "A" * 256, "+/" * 5_000, "AAAA" * 63 + "AA=="])
@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_media_are_of_the_kind_that_their_part_says(kind: str, data: str) -> None:
    for mime, found in ((f"{kind}/x-a.b+c", []), (kind, []), ("text/html", [f"[0].content[0].{kind}_url.url"])):
        link = {"url": f"data:{mime};base64,{data}"}
        assert places(user({"type": f"{kind}_url", f"{kind}_url": link})) == found


@pytest.mark.parametrize("url", [5, None, [], {"url": {"url": PIXEL}}, True])
def test_url_of_another_type_is_refused(url: Any) -> None:
    assert places(user({"type": "image_url", "image_url": {"url": url}})) == ["[0].content[0].image_url.url"]


@pytest.mark.parametrize("host", ["a.example", "169.254.169.254", "[::1]", "0x7f000001", "localhost:6379"])
def test_remote_media_need_a_grant_wherever_they_point(host: str) -> None:
    messages = [user("x"), user("x", {"type": "image_url", "image_url": {"url": f"http://{host}/x"}})]
    assert list(MESSAGES.find(messages)) == []
    assert media_grants(messages) == {"remote_media": "messages[1].content[1]"}


def test_remote_media_without_type_need_the_grant_too() -> None:
    assert media_grants([user({"video_url": "https://a/b"})]) == {"remote_media": "messages[0].content[0]"}


def test_data_urls_need_no_grant() -> None:
    assert media_grants([user({"type": "image_url", "image_url": {"url": PIXEL}}), {"role": "user", "content": "x"}]) == {}


@pytest.mark.parametrize("member", ["image_url", "audio_url", "video_url", "input_audio", "image_pil", "image_embeds"])
def test_part_holds_no_media_but_its_own_type(member: str) -> None:
    """With a uuid vLLM goes by the member and not by the type: a text part would fetch the URL."""
    smuggled = {"type": "text", "text": "x", "uuid": "1", member: "http://169.254.169.254/"}
    assert places(user(smuggled)) == [f"[0].content[0].{member}"]


def test_uuid_of_media_needs_a_grant() -> None:
    part = {"type": "image_url", "image_url": {"url": PIXEL}, "uuid": "another tenant's"}
    assert media_grants([user(part)]) == {"media_uuid": "messages[0].content[0]"}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"type": "audio_embeds", "audio_embeds": {"a": "AAAA"}},
        {"type": "video_embeds", "video_embeds": "AAAA"},
        {"type": "prompt_embeds", "data": "AAAA"},
    ],
)
def test_tensors_need_a_grant(part: dict[str, Any]) -> None:
    assert places(user(part)) == []
    assert media_grants([user(part)]) == {"embeds": "messages[0].content[0]"}


# ---- nulls


def test_nulls_are_left_out_but_for_content() -> None:
    assistant = {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "name": None}
    plain = {"role": "user", "content": "x"}
    assert without_nulls([assistant, plain]) == [{"role": "assistant", "content": None, "tool_calls": [CALL]}, plain]
