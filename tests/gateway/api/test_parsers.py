"""Bodies: whole or refused, never a fault."""

import gzip
import io
import json
from typing import Any

import pytest
from gunicorn.http.errors import InvalidChunkSize

from gateway.api import parsers
from gateway.api.parsers import read_json_object
from gateway.exceptions import GatewayError, InvalidRequest, RequestTooLarge, UnsupportedMediaType


class Sent:
    """As DRF's request: META is what is read."""

    def __init__(
        self, body: bytes, *, length: int | None = -1, content_type: str = "application/json", encoding: str = ""
    ) -> None:
        self.META: dict[str, Any] = {
            "HTTP_CONTENT_TYPE": content_type,
            "HTTP_CONTENT_ENCODING": encoding,
            "wsgi.input": io.BytesIO(body),
        }
        if length is not None:
            self.META["CONTENT_LENGTH"] = str(len(body) if length == -1 else length)


def read(sent: Sent) -> dict[str, Any]:
    return read_json_object(sent)  # type: ignore[arg-type]


def test_a_body_of_stated_length_is_read() -> None:
    assert read(Sent(b'{"model": "general"}')) == {"model": "general"}


def test_a_chunked_body_is_read_too() -> None:
    assert read(Sent('{"text": "こんにちは"}'.encode(), length=None)) == {"text": "こんにちは"}


def test_a_large_body_within_the_limit_is_read(gateway_settings: Any) -> None:
    text = "a" * (gateway_settings.REQUEST_BODY_MAX_BYTES - 20)
    assert len(read(Sent(json.dumps({"t": text}).encode()))["t"]) == len(text)


@pytest.mark.parametrize("length", [-1, None], ids=["stated", "chunked"])
def test_a_body_over_the_limit_is_413(gateway_settings: Any, length: int | None) -> None:
    gateway_settings.REQUEST_BODY_MAX_BYTES = 1000
    with pytest.raises(RequestTooLarge, match="1000 bytes"):
        read(Sent(b'"' + b"a" * 1000 + b'"', length=length))


def test_a_gzip_body_is_inflated() -> None:
    assert read(Sent(gzip.compress(b'{"a": 1}'), encoding="gzip")) == {"a": 1}


def test_a_gzip_bomb_ends_at_the_limit(gateway_settings: Any) -> None:
    gateway_settings.REQUEST_BODY_MAX_BYTES = 100_000
    with pytest.raises(RequestTooLarge):
        read(Sent(gzip.compress(b" " * 50_000_000), encoding="gzip"))


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(b'{"a": 1}')[:-4],
        gzip.compress(b'{"a": 1}') + b"more",
        gzip.compress(b'{"a": 1}') + b"more" * 100_000,
        b"plain",
        b"",
    ],
    ids=["cut", "trailing", "much more", "plain", "empty"],
)
def test_broken_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(Sent(body, encoding="gzip"))


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_other_encodings_are_415(encoding: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(Sent(b"{}", encoding=encoding))


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/json; charset*=utf-8''utf-16",
    ],
)
def test_other_media_types_are_415(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(Sent(b"{}", content_type=content_type))


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_in_utf8_is_taken_however_it_is_written(content_type: str) -> None:
    assert read(Sent(b"{}", content_type=content_type)) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b'{"a"', b"{'a': 1}", b'{"a": 1,}', b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 01}', b"[]",
        b'"text"', b"1", b"null", b"true", b'\xef\xbb\xbf{"a": 1}', '{"a": "é"}'.encode("latin-1"), '{"a": 1}'.encode("utf-16"),
        b'{"a": "\\ud800"}',
        b'{"a": "\x00"}', b'{"a": 1} {"b": 2}', b"{" * 100_000, b"[" * 100_000, b'{"a":' * 100_000, b"// comment\n{}",
    ],
)  # fmt: skip
def test_what_is_not_a_json_object_in_utf8_is_400_with_a_reason(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(Sent(body))
    assert caught.value.details
    assert caught.value.message == "Invalid chat completion request."


STEP = parsers._STEP_BYTES
CROWDED = {
    "numbers": b"[" + b"1," * 60_000 + b"1]",
    "lists": b"[" + b"[]," * 60_000 + b"[]]",
    "nested": b"[" * 60_000 + b"]" * 60_000,
    "keys": b'{"":0' + b',"k":0' * 60_000 + b"}",
    "behind a string with quotes": b'{"a":"' + b'\\"' * STEP + b'","b":[' + b"1," * 60_000 + b"1]}",
    "behind a string that ends in a backslash": b'{"a":"' + b"\\" * (2 * STEP) + b'","b":[' + b"1," * 60_000 + b"1]}",
}


@pytest.mark.parametrize("body", CROWDED.values(), ids=CROWDED.keys())
def test_a_body_of_too_many_values_is_refused_before_it_is_decoded(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(Sent(body))
    assert caught.value.details == [{"param": None, "message": "The body must not hold more than 50000 values."}]


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("text", ["a,[{", '"', "\\", '\\",[{', "あ、"])
def test_what_stands_in_a_string_is_no_value(text: str, shift: int) -> None:
    value = {"a": "x" * shift + text * 60_000}
    assert read(Sent(json.dumps(value, ensure_ascii=False).encode())) == value


def test_a_body_cut_short_is_400_and_ends_the_connection() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(Sent(b'{"a": 1}', length=100))
    assert caught.value.closes_connection


def test_broken_framing_is_400_and_ends_the_connection() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise InvalidChunkSize(b"xyz")

    sent = Sent(b"", length=None)
    sent.META["wsgi.input"] = Broken()
    with pytest.raises(InvalidRequest) as caught:
        read(sent)
    assert caught.value.closes_connection


def test_a_body_that_trickles_or_stands_still_is_given_up(gateway_settings: Any) -> None:
    import gevent

    gateway_settings.REQUEST_BODY_GRACE_S = 0.05
    gateway_settings.REQUEST_BODY_MIN_BYTES_PER_S = 10**6

    class Stalled(io.BytesIO):
        """As gunicorn's: what it is asked for, or the rest; this one brings one good part first."""

        def read(self, size: int | None = -1) -> bytes:
            part = super().read(size)
            while not part:
                gevent.sleep(0.01)
            return part

    sent = Sent(b"", length=None)
    sent.META["wsgi.input"] = Stalled(b" " * 50_000)
    with pytest.raises(GatewayError, match="Invalid chat completion request") as caught:
        read(sent)
    assert caught.value.closes_connection
    assert caught.value.status == 400
