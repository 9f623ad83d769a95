"""One worker's board, alone: what calls and probes teach it. Time is a number."""

from collections.abc import Callable

import pytest

from gateway.config.documents import Backend
from gateway.routing.board import ASK_AGAIN_S, STANDSTILL_S, STRIKES, TRIAL_S, Board, Failure, Load, News
from gateway.routing.ejection import READINESS_MIN, SLOW_START_S, Ejection
from gateway.routing.verdicts import FRESH_S, Problem, Verdict

GPU = Backend("gpu-1", "http://gpu-1:8000")
OTHER = Backend("gpu-2", "http://gpu-2:8000")


class Outside:
    """Notes what the board asks for; grants every trial until told otherwise."""

    def __init__(self) -> None:
        self.confirmations: list[str] = []
        self.claims: list[str] = []
        self.hurries = 0
        self.grants = True

    def confirm(self, backend: Backend) -> None:
        self.confirmations.append(backend.name)

    def claim_trial(self, name: str) -> bool:
        self.claims.append(name)
        return self.grants

    def hurry(self) -> None:
        self.hurries += 1


class Stand:
    def __init__(self) -> None:
        self.time_s = 1000.0
        self.board = Board(clock=lambda: self.time_s)
        self.outside = Outside()
        self.board.outside = self.outside

    def state(self, backend: Backend = GPU) -> str:
        return self.board.view(backend).state

    def probe(self, problem: Problem | None = None, *, load: tuple[int, int] | None = None, moved_s: float = 0) -> None:
        """moved_s: how long ago the gauges moved."""
        now_s = self.board.now_s()
        gauges = None if load is None else Load(*load, 0.0, now_s)
        self.board.probed(GPU.name, Verdict(now_s, problem, load=gauges, moved_at_s=None if load is None else now_s - moved_s))

    def fail(self, failure: Failure = Failure.STATUS_5XX, *, times: int = 1) -> None:
        for _ in range(times):
            self.board.note_start(GPU)
            self.board.note_failure(GPU, failure)
            self.board.note_end(GPU)

    def succeed(self) -> None:
        self.board.note_start(GPU)
        self.board.note_success(GPU, first_token_s=None)
        self.board.note_end(GPU)


@pytest.fixture
def stand() -> Stand:
    return Stand()


DOWN = Problem("refused", "takes no connections")


def test_backend_nobody_has_probed_is_unknown_and_may_be_used(stand: Stand) -> None:
    view = stand.board.view(GPU)
    assert (view.state, view.readiness, view.load, view.in_flight) == ("unknown", 1.0, None, 0)
    assert view.serves("anything")


def test_probe_makes_it_healthy_until_the_probe_is_old(stand: Stand) -> None:
    stand.probe(load=(2, 1))
    view = stand.board.view(GPU)
    assert view.state == "healthy"
    assert view.load == Load(2, 1, 0.0, stand.board.now_s())
    stand.time_s += FRESH_S
    assert (stand.state(), stand.board.view(GPU).load) == ("unknown", None)


def test_calls_are_counted_while_they_run(stand: Stand) -> None:
    stand.board.note_start(GPU)
    stand.board.note_start(GPU)
    stand.board.note_end(GPU)
    assert stand.board.view(GPU).in_flight == 1
    assert stand.board.view(OTHER).in_flight == 0


def test_three_failures_in_a_row_eject(stand: Stand) -> None:
    stand.fail(times=STRIKES - 1)
    stand.succeed()
    stand.fail(times=STRIKES - 1)
    assert stand.state() == "unknown"
    stand.fail()
    view = stand.board.view(GPU)
    assert (view.state, view.readiness) == ("ejected", 0.0)
    assert view.reason is not None
    assert "status_5xx" in view.reason
    assert stand.outside.hurries == 1


def test_streams_that_break_off_after_their_first_token_are_failures_in_a_row(stand: Stand) -> None:
    for _ in range(STRIKES):
        assert stand.state() != "ejected"
        stand.board.note_start(GPU)
        stand.board.note_success(GPU, first_token_s=0.1)
        stand.board.note_failure(GPU, Failure.CUT)
        stand.board.note_end(GPU)
    assert stand.state() == "ejected"


def test_engine_that_is_dead_is_ejected_at_once(stand: Stand) -> None:
    stand.probe()
    stand.fail(Failure.ENGINE_DEAD)
    assert stand.state() == "ejected"
    stand.probe()  # /health is at 200 all the time: it must not bring it back
    stand.time_s += 1
    stand.probe()
    assert stand.state() == "trial"


def test_refused_connection_ejects_when_a_second_try_confirms_it(stand: Stand) -> None:
    stand.fail(Failure.REFUSED)
    assert (stand.outside.confirmations, stand.state()) == (["gpu-1"], "unknown")
    stand.board.confirmed(GPU, Verdict(stand.board.now_s(), DOWN))
    assert stand.state() == "ejected"


def test_refused_connection_that_nothing_confirms_is_a_strike(stand: Stand) -> None:
    for _ in range(STRIKES):
        assert stand.state() != "ejected"
        stand.fail(Failure.REFUSED)
        stand.board.confirmed(GPU, Verdict(stand.board.now_s(), None))
    assert stand.state() == "ejected"


def test_first_token_timeout_in_a_queue_that_moves_is_no_strike(stand: Stand) -> None:
    stand.probe(load=(8, 40))
    stand.fail(Failure.FIRST_TOKEN_TIMEOUT, times=10)
    assert stand.state() == "healthy"


@pytest.mark.parametrize("failure", [Failure.FIRST_TOKEN_TIMEOUT, Failure.STALLED])
def test_time_out_while_the_gauges_stand_still_ejects_at_once(stand: Stand, failure: Failure) -> None:
    stand.probe(load=(1, 40), moved_s=5)
    stand.fail(failure)
    assert stand.state() == "ejected"
    assert stand.board.hangs(GPU)


def test_time_out_while_the_gauges_move_is_an_ordinary_strike(stand: Stand) -> None:
    stand.probe(load=(1, 0), moved_s=0.5)
    stand.fail(Failure.STALLED, times=STRIKES - 1)
    assert stand.state() == "healthy"
    stand.fail(Failure.STALLED)
    assert stand.state() == "ejected"


def test_idle_gauges_stand_still_rightly(stand: Stand) -> None:
    """They have not moved for an hour because nobody called; the call that times out began a second ago."""
    stand.board.note_start(GPU)
    stand.time_s += 1
    stand.probe(load=(0, 0), moved_s=3600)
    stand.board.note_failure(GPU, Failure.FIRST_TOKEN_TIMEOUT)
    assert stand.state() == "healthy"


def test_engine_that_hangs_is_found_before_any_time_out(stand: Stand) -> None:
    """Idle when it began to hang: its gauges say 0, and a call waits."""
    stand.board.note_start(GPU)
    for second in range(int(STANDSTILL_S) + 1):
        assert stand.state() != "ejected"
        stand.probe(load=(0, 0), moved_s=60 + second)
        stand.board.eject_those_that_stand_still()
        stand.time_s += 1
    assert stand.state() == "ejected"
    assert stand.board.hangs(GPU)


def test_backend_that_answers_does_not_hang_whatever_its_gauges_say(stand: Stand) -> None:
    stand.board.note_start(GPU)
    for second in range(60):
        stand.succeed()
        stand.probe(load=(1, 0), moved_s=second)
        stand.board.eject_those_that_stand_still()
        stand.time_s += 1
    assert stand.state() != "ejected"


def test_backend_without_calls_does_not_hang(stand: Stand) -> None:
    stand.probe(load=(0, 0), moved_s=3600)
    stand.board.eject_those_that_stand_still()
    stand.succeed()
    stand.board.eject_those_that_stand_still()
    assert stand.state() == "healthy"


def test_engine_that_hangs_is_tried_when_its_gauges_move_or_after_a_minute(stand: Stand) -> None:
    stand.probe(load=(1, 0), moved_s=5)
    stand.fail(Failure.STALLED)
    stand.time_s += 5
    stand.probe(load=(1, 0), moved_s=10)
    assert stand.state() == "ejected"
    stand.probe(load=(0, 0), moved_s=1)
    assert stand.state() == "trial"
    assert not stand.board.hangs(GPU), "the call that tries it is to wait"
    stand.time_s += 60
    stand.probe(load=(0, 0), moved_s=70)
    assert stand.state() == "trial"


def test_backend_ejected_by_probes_is_readmitted_by_a_probe(stand: Stand) -> None:
    stand.probe(DOWN)
    assert stand.state() == "ejected"
    assert stand.board.view(GPU).reason == "takes no connections"
    stand.probe()
    assert stand.state() == "ejected", "its back-off of a second is not over"
    stand.time_s += 1
    stand.probe()
    view = stand.board.view(GPU)
    assert (view.state, view.reason) == ("healthy", None)
    assert view.readiness == pytest.approx(READINESS_MIN)
    stand.time_s += SLOW_START_S
    assert stand.board.view(GPU).readiness == 1


def test_backend_ejected_by_calls_is_readmitted_by_a_call(stand: Stand) -> None:
    stand.fail(times=STRIKES)
    assert not stand.board.take_trial(GPU)
    stand.time_s += 1
    assert stand.state() == "trial"
    assert stand.board.view(GPU).readiness == 0
    assert stand.board.take_trial(GPU)
    assert not stand.board.take_trial(GPU)
    stand.succeed()
    assert stand.state() != "trial"
    assert stand.board.view(GPU).readiness == pytest.approx(READINESS_MIN)
    assert stand.board.news([]).ended_trials == {"gpu-1"}


def test_trial_that_fails_doubles_the_back_off(stand: Stand) -> None:
    stand.fail(times=STRIKES)
    for back_off_s in (1, 2, 4, 8):
        stand.time_s += back_off_s - 0.01
        assert stand.state() == "ejected"
        stand.time_s += 0.01
        assert stand.board.take_trial(GPU)
        stand.fail()
    assert stand.state() == "ejected"


def test_calls_from_before_the_ejection_that_fail_later_tell_nothing_new(stand: Stand) -> None:
    for _ in range(50):
        stand.board.note_start(GPU)
    for _ in range(50):
        stand.board.note_failure(GPU, Failure.CUT)
    stand.time_s += 1
    stand.board.note_failure(GPU, Failure.CUT)
    assert stand.state() == "trial"


def test_trial_whose_client_leaves_is_free_for_the_next_call(stand: Stand) -> None:
    stand.fail(times=STRIKES)
    stand.time_s += 1
    assert stand.board.take_trial(GPU)
    stand.board.note_start(GPU)
    stand.board.note_end(GPU)
    stand.time_s += ASK_AGAIN_S
    assert stand.board.take_trial(GPU)


def test_trial_that_another_worker_has_is_asked_for_once_a_second(stand: Stand) -> None:
    stand.outside.grants = False
    stand.fail(times=STRIKES)
    stand.time_s += 1
    assert [stand.board.take_trial(GPU) for _ in range(5)] == [False] * 5
    assert len(stand.outside.claims) == 1
    stand.outside.grants = True
    stand.time_s += ASK_AGAIN_S
    assert stand.board.take_trial(GPU)


def test_trial_that_nobody_ends_is_over_after_its_time(stand: Stand) -> None:
    stand.fail(times=STRIKES)
    stand.time_s += 1
    assert stand.board.take_trial(GPU)
    stand.time_s += TRIAL_S - 1
    assert not stand.board.take_trial(GPU)
    stand.time_s += 1
    assert stand.board.take_trial(GPU)


def test_call_of_last_resort_that_succeeds_brings_it_back(stand: Stand) -> None:
    """All were out, and the longest ejected was tried without a trial: what it showed counts."""
    stand.fail(times=STRIKES)
    stand.succeed()
    assert stand.state() == "unknown"


def test_failing_probe_takes_over_from_calls_and_ends_it(stand: Stand) -> None:
    stand.fail(times=STRIKES)
    stand.probe(DOWN)
    stand.time_s += 5
    assert stand.state() == "ejected"
    stand.succeed()  # a straggler: its connection was open before
    assert stand.state() == "ejected"
    stand.probe()
    assert stand.state() == "healthy"


def test_first_token_times_are_learned(stand: Stand) -> None:
    for _ in range(50):
        stand.board.note_success(GPU, first_token_s=0.5)
    stand.board.note_success(GPU, first_token_s=None)
    assert stand.board.view(GPU).first_token_s == pytest.approx(0.5)
    stand.board.note_success(GPU, first_token_s=1.0)
    assert stand.board.view(GPU).first_token_s == pytest.approx(0.6)


def take_in(stand: Stand, told: News, now_s: float, in_flight: dict[str, int], ejections: dict[str, Ejection]) -> None:
    stand.board.take_in(told=told, now_s=now_s, in_flight=in_flight, verdicts={}, ejections=ejections)


def test_calls_of_other_workers_count_while_they_are_news(stand: Stand) -> None:
    stand.board.note_start(GPU)
    take_in(stand, stand.board.news([]), stand.board.now_s(), {"gpu-1": 4, "gpu-2": 2}, {})
    assert stand.board.view(GPU).in_flight == 5
    assert stand.board.view(OTHER).in_flight == 2
    take_in(stand, stand.board.news([]), stand.board.now_s(), {"gpu-1": 1}, {})
    assert (stand.board.view(GPU).in_flight, stand.board.view(OTHER).in_flight) == (2, 0)
    stand.time_s += FRESH_S
    assert stand.board.view(GPU).in_flight == 1


def test_newer_record_of_an_ejection_wins_and_ours_is_told_until_it_arrives(stand: Stand) -> None:
    stand.fail(times=STRIKES)
    [ours] = stand.board.news([]).ejections.values()
    take_in(stand, stand.board.news([]), stand.board.now_s(), {}, {"gpu-1": ours})
    assert not stand.board.news([]).ejections
    take_in(stand, stand.board.news([]), stand.board.now_s(), {}, {})  # Redis was flushed
    assert stand.board.news([]).ejections == {"gpu-1": ours}
    theirs = ours.readmitted(stand.board.now_s() + 1)
    take_in(stand, stand.board.news([]), stand.board.now_s(), {}, {"gpu-1": theirs})
    assert stand.state() == "unknown"
    take_in(stand, stand.board.news([]), stand.board.now_s(), {}, {"gpu-1": ours})
    assert stand.state() == "unknown"
    assert stand.board.news([]).ejections == {"gpu-1": theirs}


def test_times_are_by_the_clock_of_redis(stand: Stand) -> None:
    take_in(stand, stand.board.news([]), 5_000_000.0, {}, {})
    stand.time_s += 2
    assert stand.board.now_s() == pytest.approx(5_000_002.0)


def test_backend_that_is_not_configured_any_more_is_forgotten_when_its_calls_end(stand: Stand) -> None:
    stand.board.note_start(GPU)
    stand.board.note_start(OTHER)
    stand.board.note_end(OTHER)
    names: Callable[[], set[str]] = lambda: {name for name, _, _ in stand.board.totals()}  # noqa: E731
    stand.board.forget_all_but([])
    assert names() == {"gpu-1"}
    stand.board.note_end(GPU)
    stand.board.forget_all_but([])
    assert names() == set()
