"""A damaged spool file costs the record that was hit, and no other."""

from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from usage.segment import cut, line_of

LINES = st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")), min_size=1, max_size=8)


def file_of(lines: list[bytes]) -> bytes:
    return b"".join(b"%08x %b\n" % (crc32(line), line) for line in lines)


def read(data: bytes) -> list[bytes]:
    lines = []
    start = 0
    for end, is_whole in cut(data):
        line = line_of(data[start:end])
        assert (line is not None) == is_whole
        if line is not None:
            lines.append(line)
        start = end
    assert start == len(data), "every byte is in one stretch"
    return lines


@given(LINES)
@settings(deadline=None)
def test_what_was_written_is_read(lines: list[bytes]) -> None:
    assert read(file_of(lines)) == lines


@given(LINES, st.data())
@settings(deadline=None)
def test_one_flipped_byte_costs_one_line_at_most(lines: list[bytes], data: st.DataObject) -> None:
    original = file_of(lines)
    whole = bytearray(original)
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    hit = original[:at].count(b"\n")
    others = lines[:hit] + lines[hit + 1 :]
    assert read(bytes(whole)) in (others, lines)  # lines: only the newline was hit


def test_a_header_alone_is_no_empty_line() -> None:
    assert read(b"00000000 ") == []
    assert read(b"00000000 \n") == [b""]


@given(LINES, st.data())
@settings(deadline=None)
def test_a_torn_end_costs_the_torn_line_alone(lines: list[bytes], data: st.DataObject) -> None:
    whole = file_of(lines)
    torn = whole[: data.draw(st.integers(0, len(whole)))]
    assert read(torn) == lines[: torn.count(b"\n")]


@given(LINES, LINES, st.integers(1, 5000))
@settings(deadline=None)
def test_a_zeroed_stretch_costs_what_it_covers(before: list[bytes], after: list[bytes], size: int) -> None:
    """What power loss leaves of a page that was never written. The first line after it has no newline before it."""
    read_back = read(file_of(before) + bytes(size) + b"\n" + file_of(after))
    assert read_back == before + after
