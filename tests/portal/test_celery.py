"""The worker's way back to a broker that is out."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kombu import Consumer, Message, Queue

from portal import embedded
from portal.celery import Broker, app


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


def test_a_worker_outlives_a_broker_that_dies_while_it_holds_a_task(tmp_path: Path) -> None:
    store = embedded.start_valkey(tmp_path)
    broker = Broker(store.url.replace("unix://", "redis+socket://", 1).partition("?")[0])
    transport: Any = broker.transport
    transport.brpop_timeout = 60  # seconds: until the end
    held: list[Message] = []
    with broker.SimpleQueue("tasks") as queue:
        queue.put("one")
    Consumer(broker.default_channel, [Queue("tasks")], on_message=held.append).consume()
    Consumer(broker.channel(), [Queue("control")]).consume()
    with suppress(TimeoutError):
        while True:  # until it waits for a second one, as a worker does
            broker.drain_events(timeout=0.5)
    assert len(held) == 1
    store.stop()
    broker.collect(socket_timeout=1)  # as celery's consumer leaves a connection that was lost
    broker.close()
    assert not broker.connected
