"""No call is lost that a healthy backend could have answered, and none that breaks passes for a success."""

import time

import pytest

from tests.faults.clients import until
from tests.faults.field import Fault, Field
from tests.faults.matrix import ROWS, row_of
from tests.faults.names import Names
from tests.faults.rows import FAULTS
from tests.simulator import simulator

pytestmark = pytest.mark.xdist_group("faults")

EJECTED_WITHIN_S = 40.0  # upper guards: the figures themselves are printed
SKEW_MAX_S = 60.0
PLAIN_REFUSAL_MAX_S = 5.0


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_no_call_is_lost_to_one_sick_backend(field: Field, fault: Fault) -> None:
    row, results = field.suffer(fault, f"f{FAULTS.index(fault)}")
    ROWS.append(row)
    failed = [result for result in results if result.ending != "whole"]
    assert row.lost == 0, failed
    assert {result.ending for result in failed} <= ({"event"} if fault.breaks else set()), failed
    assert set(row.endings) <= fault.recorded
    assert all(abs(result.skew_s) < SKEW_MAX_S for result in results if result.ending == "whole")
    assert fault.is_seen in (None, row.ejected_s is not None)
    assert row.ejected_s is None or row.ejected_s < EJECTED_WITHIN_S


def test_with_all_down_calls_fail_at_once_and_succeed_when_one_is_back(field: Field) -> None:
    field.prepare("down", {})
    with field.clients().calling() as clients:
        until(lambda: len(clients.results) >= 30, "the clients get no answers")
        began_s = time.monotonic()
        for machine in field.machines:
            machine.sim.kill()
        time.sleep(20.0 if field.is_long else 3.0)
        back_s = time.monotonic()
        for machine in field.machines:
            machine.make_well()
        until(lambda: any(r.at_s > back_s and r.ending == "whole" for r in clients.results), "no call succeeds any more")
        time.sleep(2.0)
    first = next(result for result in clients.results if result.at_s > back_s and result.ending == "whole")
    results = [result for result in clients.results if result.at_s + result.seconds >= began_s]
    recovered_s = first.at_s - back_s
    ROWS.append(
        row_of("all down under load, then back", results, field.recorded(results), ejected_s=None, recovered_s=recovered_s)
    )
    failed = [result for result in results if result.ending != "whole"]
    assert {result.ending for result in failed} <= {"status", "event"}
    assert {result.status for result in failed} <= {200, 502}
    assert all(result.seconds < PLAIN_REFUSAL_MAX_S for result in failed)
    assert not [result for result in failed if result.at_s > first.at_s + first.seconds + 1.0], "it is over when it is over"


def test_a_name_that_moves_is_followed(field: Field, name_server: Names) -> None:
    old = field.machines[0]
    urls = [f"http://gpu.test:{old.port}", *(machine.sim.url for machine in field.machines[1:])]
    field.prepare("moves", {}, urls=urls)
    assert name_server.asked
    with simulator("--host", "127.0.0.2", "--port", str(old.port)) as new, field.clients().calling() as clients:
        until(lambda: len(clients.results) >= 30, "the clients get no answers")
        began_s = time.monotonic()
        name_server.address = "127.0.0.2"
        time.sleep(0.5)
        old.sim.kill()
        until(lambda: len(new.requests()) > 0, "the new machine gets no calls")
        followed_s = time.monotonic() - began_s
        time.sleep(1.0)
    results = [result for result in clients.results if result.at_s + result.seconds >= began_s]
    row = row_of(
        "its name moves, the old machine goes", results, field.recorded(results), ejected_s=None, recovered_s=followed_s
    )
    ROWS.append(row)
    assert row.lost == 0
    assert {result.ending for result in results} <= {"whole", "event"}
