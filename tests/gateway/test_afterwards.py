"""What is put off until the loop comes round: in order, all of it, and nobody's fault is another's."""

import gevent
import pytest
from structlog.testing import capture_logs

from gateway import afterwards


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker; other tests have none."""
    monkeypatch.setattr(afterwards, "_loop", None)
    afterwards.begin()


def test_without_a_loop_it_is_done_at_once() -> None:
    done: list[int] = []
    afterwards.do(done.append, 1)
    assert done == [1]


@pytest.mark.usefixtures("loop")
def test_it_is_done_in_order_once_whoever_asked_waits() -> None:
    done: list[int] = []
    for number in range(3):
        afterwards.do(done.append, number)
    assert done == [], "its answer goes first"
    gevent.sleep(0.001)
    assert done == [0, 1, 2]
    afterwards.do(done.append, 3)
    gevent.sleep(0.001)
    assert done == [0, 1, 2, 3]


@pytest.mark.usefixtures("loop")
def test_what_is_asked_for_meanwhile_is_done_too() -> None:
    done: list[int] = []
    afterwards.do(lambda: afterwards.do(done.append, 1))
    gevent.sleep(0.01)
    assert done == [1]


@pytest.mark.usefixtures("loop")
def test_what_fails_is_logged_and_keeps_nothing_else_from_being_done() -> None:
    done: list[int] = []
    with capture_logs() as logs:
        afterwards.do(done.append, 1)
        afterwards.do(int, "a prompt")
        afterwards.do(done.append, 2)
        gevent.sleep(0.001)
    assert done == [1, 2]
    assert [(line["event"], line["error_class"]) for line in logs] == [("unexpected_error", "ValueError")]


@pytest.mark.usefixtures("loop")
def test_at_the_end_nothing_is_left_undone() -> None:
    done: list[int] = []
    afterwards.do(done.append, 1)
    afterwards.catch_up()
    assert done == [1]
    gevent.sleep(0.001)
    assert done == [1]
