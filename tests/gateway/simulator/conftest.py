"""One stand-in for the tests of a module, its knobs back in place before each of them."""

from collections.abc import Iterator

import pytest

from tests.simulator import Simulator, simulator


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    with simulator() as sim:
        yield sim


@pytest.fixture
def sim(running: Simulator) -> Simulator:
    running.reset()
    return running
