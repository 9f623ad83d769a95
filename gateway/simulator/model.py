"""The state of one simulated server: what it serves, how its knobs stand, its engine."""

import random
from dataclasses import dataclass, field, replace

from gateway.simulator import metrics
from gateway.simulator.asks import Served
from gateway.simulator.engine import Engine
from gateway.simulator.errors import unauthorized
from gateway.simulator.knobs import Knobs


@dataclass(slots=True, eq=False)
class Model:
    """served, knobs: changed by /sim/knobs alone; first_served, first_knobs: as the command line said.

    dice: seeded, so that a fail_rate fails the same requests in every run.
    """

    served: Served
    knobs: Knobs
    api_key: str | None = field(default=None, repr=False)
    dice: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - the same failures in every run
    engine: Engine = field(init=False)
    first_served: Served = field(init=False)
    first_knobs: Knobs = field(init=False)
    _frozen_gauges: bytes | None = None

    def __post_init__(self) -> None:
        self.first_served, self.first_knobs = self.served, self.knobs
        self.engine = Engine(lambda: self.knobs)
        self.turn(self.knobs)

    def turn(self, knobs: Knobs) -> None:
        """Behave as `knobs` say from now on."""
        stands_still = knobs.metrics_frozen or knobs.engine_hung
        self._frozen_gauges = (self._frozen_gauges or self._live_gauges()) if stands_still else None
        self.knobs = knobs
        self.served = replace(
            self.first_served,
            models=(knobs.models_name,) if knobs.models_name else self.first_served.models,
            max_model_len=knobs.max_model_len or self.first_served.max_model_len,
        )
        self.engine.stand_still(hung=knobs.engine_hung)
        self.engine.admit()

    def gauges(self) -> bytes:
        """What GET /metrics says."""
        return self._frozen_gauges or self._live_gauges()

    def _live_gauges(self) -> bytes:
        kv_tokens = self.knobs.max_num_seqs * self.served.max_model_len
        return metrics.page(self.engine, self.served.models[0], max(1, kv_tokens))

    def check_key(self, path: str, authorization: str) -> None:
        """Raises Refusal. As in vLLM the key guards /v1/* alone, and the word Bearer may be in any case."""
        scheme, _, key = authorization.partition(" ")
        if self.api_key is not None and path.startswith("/v1/") and (scheme.lower() != "bearer" or key != self.api_key):
            raise unauthorized()
