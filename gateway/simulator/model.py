"""The state of one simulated server: what it serves, how its knobs stand, its engine."""

import random
from dataclasses import dataclass, field

from gateway.simulator.asks import Served
from gateway.simulator.engine import Engine
from gateway.simulator.errors import unauthorized
from gateway.simulator.knobs import Knobs


@dataclass(slots=True, eq=False)
class Model:
    """knobs: changed by /sim/knobs alone; first_knobs: as the command line said.

    dice: seeded, so that a fail_rate fails the same requests in every run.
    """

    served: Served
    knobs: Knobs
    api_key: str | None = field(default=None, repr=False)
    dice: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - the same failures in every run
    engine: Engine = field(init=False)
    first_knobs: Knobs = field(init=False)

    def __post_init__(self) -> None:
        self.first_knobs = self.knobs
        self.engine = Engine(lambda: self.knobs)

    def turn(self, knobs: Knobs) -> None:
        self.knobs = knobs
        self.engine.admit()

    def check_key(self, path: str, authorization: str) -> None:
        """Raises Refusal. As in vLLM the key guards /v1/* alone, and the word Bearer may be in any case."""
        scheme, _, key = authorization.partition(" ")
        if self.api_key is not None and path.startswith("/v1/") and (scheme.lower() != "bearer" or key != self.api_key):
            raise unauthorized()
