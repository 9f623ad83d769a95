"""Whatever happens to several workers, and to Redis between them: when all have met, all boards say the same."""

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.config.documents import Backend
from gateway.routing.board import Board, Failure
from gateway.routing.ejection import Ejection
from gateway.routing.verdicts import Problem, Verdict

WORKERS = 3
BACKENDS = [Backend(f"gpu-{number}", "http://gpu") for number in range(2)]
workers = st.integers(0, WORKERS - 1)
backends = st.sampled_from(BACKENDS)


class Workers(RuleBasedStateMachine):
    """ejections: what Redis holds. A record there gives way to a newer one."""

    def __init__(self) -> None:
        super().__init__()
        self.time_s = 1000.0
        self.boards = [Board(clock=lambda: self.time_s) for _ in range(WORKERS)]
        self.open: Counter[tuple[int, str]] = Counter()
        self.told: dict[int, dict[str, int]] = {}
        self.ejections: dict[str, Ejection] = {}

    @rule(worker=workers, backend=backends)
    def call_begins(self, worker: int, backend: Backend) -> None:
        self.boards[worker].take_trial(backend)
        self.boards[worker].note_start(backend)
        self.open[worker, backend.name] += 1

    @rule(worker=workers, backend=backends, failure=st.sampled_from([None, *Failure]))
    def call_ends(self, worker: int, backend: Backend, failure: Failure | None) -> None:
        if not self.open[worker, backend.name]:
            return
        self.open[worker, backend.name] -= 1
        if failure is None:
            self.boards[worker].note_success(backend, first_token_s=0.1)
            self.boards[worker].note_success(backend, first_token_s=None)
        else:
            self.boards[worker].note_failure(backend, failure)
        self.boards[worker].note_end(backend)

    @rule(worker=workers, backend=backends, problem=st.sampled_from([None, Problem("refused", "takes no connections")]))
    def probe(self, worker: int, backend: Backend, problem: Problem | None) -> None:
        board = self.boards[worker]
        board.probed(backend.name, Verdict(board.now_s(), problem))

    @rule(worker=workers)
    def meet(self, worker: int) -> None:
        news = self.boards[worker].news([])
        for name, ejection in news.ejections.items():
            if ejection.is_newer_than(self.ejections.get(name)):
                self.ejections[name] = ejection
        self.told[worker] = dict(news.in_flight)
        others: Counter[str] = Counter()
        for other, calls in self.told.items():
            if other != worker:
                others.update(calls)
        arrived: dict[str, Any] = {"in_flight": others, "verdicts": {}, "ejections": dict(self.ejections)}
        self.boards[worker].take_in(told=news, now_s=self.time_s, **arrived)

    @rule(elapsed_s=st.floats(0.1, 40))
    def time_goes_on(self, elapsed_s: float) -> None:
        self.time_s += elapsed_s

    @rule()
    def redis_is_flushed(self) -> None:
        self.ejections.clear()
        self.told.clear()

    @invariant()
    def views_make_sense(self) -> None:
        for (worker, board), backend in ((pair, backend) for pair in enumerate(self.boards) for backend in BACKENDS):
            view = board.view(backend)
            assert 0 <= view.readiness <= 1
            assert (view.readiness == 0) == (view.state in {"ejected", "trial"}) == (view.reason is not None)
            assert view.in_flight >= self.open[worker, backend.name]

    def teardown(self) -> None:
        for _ in range(3):  # in one a worker finds Redis flushed, in the next it writes, in the third all have read
            for worker in range(WORKERS):
                self.meet(worker)
        for backend in BACKENDS:
            views = [board.view(backend) for board in self.boards]
            seen = {(view.state in {"ejected", "trial"}, view.readiness, view.reason) for view in views}
            assert len(seen) == 1, seen
            assert {view.in_flight for view in views} == {sum(self.open[worker, backend.name] for worker in range(WORKERS))}


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
