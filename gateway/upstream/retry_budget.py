"""The retry budget: how many second tries a deployment's calls may have, so that failing over never doubles a storm. Pure."""

from typing import Final

SHARE: Final = 0.1  # of the calls of the window
# Beside the share: a small installation has no ten calls a retry, and a busy backend that dies takes many calls at once.
FLOOR: Final = 100
WINDOW_S: Final = 60


class RetryBudget:
    """Of one deployment, in one worker. Times: seconds of a clock that never goes back."""

    __slots__ = ("_calls", "_now_s", "_retries")

    def __init__(self) -> None:
        self._calls = [0] * WINDOW_S  # one bucket a second, reused
        self._retries = [0] * WINDOW_S
        self._now_s = 0

    def note_call(self, now_s: float) -> None:
        """A call has come, whatever becomes of it."""
        second = int(now_s)
        self._calls[second % WINDOW_S if second == self._now_s else self._bucket(now_s)] += 1

    def take(self, now_s: float) -> bool:
        """May a call try once more? True: that is one retry of the budget gone."""
        bucket = self._bucket(now_s)
        if sum(self._retries) >= FLOOR + SHARE * sum(self._calls):
            return False
        self._retries[bucket] += 1
        return True

    def _bucket(self, now_s: float) -> int:
        """The one of this second, with those emptied that the window has left behind."""
        second = int(now_s)
        for passed in range(max(self._now_s, second - WINDOW_S) + 1, second + 1):
            self._calls[passed % WINDOW_S] = self._retries[passed % WINDOW_S] = 0
        self._now_s = max(self._now_s, second)
        return second % WINDOW_S
