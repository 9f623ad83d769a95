"""The worker's way back to a broker that is out."""

import pytest

from portal.celery import app


class Enough(Exception):
    pass


def test_the_broker_is_tried_again_every_second_for_ever() -> None:
    pauses: list[float] = []

    def note(_: Exception, pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 3:
            raise Enough

    with app.connection_for_read("redis+socket:///nowhere/at/all.sock") as broker, pytest.raises(Enough):
        broker.ensure_connection(note, app.conf.broker_connection_max_retries)
    assert pauses == [1, 1, 1]
    assert app.conf.broker_connection_max_retries is None
