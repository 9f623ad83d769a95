"""Verdicts: what the answers of a backend to its prober mean. Pure; times are by Board.now_s()."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import orjson

from gateway.routing.gauges import Load, read_gauges
from gateway.upstream.errors import UpstreamCut, UpstreamError, UpstreamRefused, UpstreamSilence, UpstreamStalled

# Probed once a second: what is older was measured by a prober that is gone, or before Redis went.
FRESH_S: Final = 3.0
NAMES_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Findings:
    """What one round of probes brought. models, metrics None: no answer, which is held against nobody."""

    health: Answer | UpstreamError
    models: Answer | None = None
    metrics: Answer | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a backend is to take no calls. reason: a word, for metrics; text: for people."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """problem None: it is well, as far as probes can tell. models, max_model_len: as /v1/models says, None: not known.

    progress: of its gauges; moved_at_s: when that last changed. load, progress, moved_at_s None: it showed no gauges.
    """

    at_s: float
    problem: Problem | None
    models: tuple[str, ...] | None = None
    max_model_len: int | None = None
    load: Load | None = None
    progress: tuple[float, ...] | None = None
    moved_at_s: float | None = None

    def is_fresh(self, now_s: float) -> bool:
        return abs(now_s - self.at_s) < FRESH_S

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError for what another release wrote in another form."""
        problem, models, load, progress = data["problem"], data["models"], data["load"], data["progress"]
        return cls(
            at_s=float(data["at_s"]),
            problem=None if problem is None else Problem(**problem),
            models=None if models is None else tuple(models),
            max_model_len=data["max_model_len"],
            load=None if load is None else Load(**load),
            progress=None if progress is None else tuple(progress),
            moved_at_s=data["moved_at_s"],
        )


def judge(findings: Findings, expected: Collection[str], *, previous: Verdict | None, now_s: float) -> Verdict:
    """The verdict on a backend. expected: the served models of the deployments that use it; any one of them will do."""
    models, max_model_len = _models(findings.models, expected)
    if models is None and previous is not None:
        models, max_model_len = previous.models, previous.max_model_len
    gauges = read_gauges(findings.metrics.body) if findings.metrics and findings.metrics.status == 200 else None
    has_moved = previous is None or gauges is None or previous.progress != gauges.progress
    return Verdict(
        at_s=now_s,
        problem=_health_problem(findings.health) or _models_problem(findings.models, models, expected),
        models=models,
        max_model_len=max_model_len,
        load=gauges.load(now_s) if gauges else None,
        progress=gauges.progress if gauges else None,
        moved_at_s=None if gauges is None else now_s if has_moved else previous.moved_at_s if previous else None,
    )


def _health_problem(health: Answer | UpstreamError) -> Problem | None:
    match health:
        case Answer(status=200):
            return None
        case Answer():
            return Problem("unhealthy", f"/health answers {health.status}")
        case UpstreamRefused():
            return Problem("refused", "takes no connections")
        case UpstreamSilence() | UpstreamStalled():
            return Problem("silent", "/health does not answer in time")
        case UpstreamCut():
            return Problem("cut", "ends connections without an answer")
    return Problem("garbage", "/health does not answer in HTTP")


def _models_problem(answer: Answer | None, models: tuple[str, ...] | None, expected: Collection[str]) -> Problem | None:
    if answer is not None and answer.status in (401, 403):
        return Problem("credential", f"/v1/models answers {answer.status}: it does not accept the credential it is sent")
    if models is None or not expected or not set(expected).isdisjoint(models):
        return None
    served, wanted = (", ".join(map(repr, sorted(names)))[:NAMES_MAX] or "nothing" for names in (models, expected))
    return Problem("wrong_model", f"serves {served}, not {wanted}")


def _models(answer: Answer | None, expected: Collection[str]) -> tuple[tuple[str, ...] | None, int | None]:
    """The names in a /v1/models answer, and the context of a model that is wanted, else of the first that states one."""
    if answer is None or answer.status != 200:
        return None, None
    try:
        lengths = {str(card["id"]): card.get("max_model_len") for card in orjson.loads(answer.body)["data"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, None
    stated = {name: length for name, length in lengths.items() if type(length) is int}
    in_order = [stated[name] for name in (*sorted(expected), *stated) if name in stated]  # an adapter's card states none
    return tuple(lengths), in_order[0] if in_order else None
