"""The conservation proof: after any mix of calls the simulator, the ledger, the rollups, GET /v1/usage and the counters agree.

Two sorts of calls stand apart where the simulator is compared with the ledger: those that ended before their first byte,
whose tokens are nobody's, and plain ones whose client left, for which there can only be an estimate. Both must say so.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from django.db.models import Sum

from gateway.models import Limit, ModelAlias
from tests.e2e.conftest import CHAT, Stand, await_configuration, publish
from tests.processes import Gateway, portal
from tests.proofs import full
from usage.limits import SUBJECTS
from usage.models import DayAllKeys, DayKey, DayRollup, HourAllKeys, HourRollup, MinuteAllKeys, MinuteRollup, UsageRecord
from usage.money import units
from usage.posting import drain_journal

CALLS = 20_000 if full() else 1_000
WAVE = 4_000  # the simulator remembers 10,000 calls
CLIENTS = 64
PATIENCE_S = 120.0  # of one call, and of the posting of a wave
PLENTY = 10**15
TOKEN_LIMITS: Final = ("tokens_per_hour", "tokens_per_day", "tokens_per_month")
SUMS: Final = ("prompt_tokens", "completion_tokens", "cost_nano")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of call. sim: the knobs it turns; statuses: what its client may see; leaves: after how many events it goes."""

    name: str
    weight: int
    statuses: tuple[int, ...] = (200,)
    sim: str = ""
    leaves: range | None = None
    body: dict[str, Any] = field(default_factory=dict)
    is_poor: bool = False  # by the key that has no tokens


STREAM: Final = {"stream": True}
LONG: Final = {"max_tokens": 2000, "ignore_eos": True}
AT_ONCE: Final = range(1)  # without a look at the answer
# Whether a stream breaks before or after its first byte went out is up to the moment: hence two statuses.
BREAKS: Final = (200, 502)
KINDS: Final = (
    Kind("streamed", 16, body=STREAM),
    Kind("plain", 16),
    Kind("three streamed", 6, body=STREAM | {"n": 3}),
    Kind("three plain", 6, body={"n": 3}),
    Kind("left mid-stream", 12, sim="tokens_per_s=200", leaves=range(1, 30), body=STREAM | LONG),
    Kind("left at full speed", 4, leaves=range(1, 30), body=STREAM | LONG),
    Kind("three left mid-stream", 4, sim="tokens_per_s=100", leaves=range(1, 60), body=STREAM | LONG | {"n": 3}),
    Kind("left before the first event", 2, sim="first_token_ms=100000", leaves=AT_ONCE, body=STREAM),
    Kind("plain left", 4, sim="first_token_ms=100 tokens_per_s=5", leaves=AT_ONCE, body=LONG),
    Kind("bad request", 4, (400,), body={"n": 0}),
    Kind("too long", 1, (400,), body={"messages": [{"role": "user", "content": "word " * 9000}]}),
    Kind("unknown model", 4, (404,), body={"model": "no-such-model"}),
    Kind("over limit", 4, (429,), is_poor=True),
    Kind("failed at once", 3, (502,), sim="status=500"),
    Kind("failed as a page", 1, (502,), sim="status=502 html"),
    Kind("full", 2, (503,), sim="status=503"),
    Kind("cut", 2, (502,), sim="cut_after=200"),
    Kind("cut mid-stream", 2, BREAKS, sim="cut_after=9 tokens_per_s=50", body=STREAM),
    Kind("error mid-stream", 2, BREAKS, sim="error_event_after=6 tokens_per_s=50", body=STREAM),
    Kind("three with an error", 1, BREAKS, sim="error_event_after=20 tokens_per_s=50", body=STREAM | {"n": 3}),
    Kind("stopped mid-stream", 2, BREAKS, sim="abort_after=7 tokens_per_s=50", body=STREAM),
    Kind("no end", 2, BREAKS, sim="no_done tokens=12 tokens_per_s=50", body=STREAM),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of a kind. id: the client's own."""

    id: str
    kind: Kind
    leaves: int | None
    prompt: str

    def body(self) -> bytes:
        text = f"[[sim {self.kind.sim}]] {self.prompt}" if self.kind.sim else self.prompt
        whole = {"model": "general", "max_tokens": 400, "messages": [{"role": "user", "content": text}]} | self.kind.body
        return json.dumps(whole).encode()


def asks(count: int) -> Iterator[Ask]:
    dice = random.Random(count)
    for number in range(count):
        (kind,) = dice.choices(KINDS, [kind.weight for kind in KINDS])
        leaves = dice.choice(kind.leaves) if kind.leaves else None
        words = dice.choices(("permit", "gate", "関所の", "evening", "手形 "), k=dice.randint(1, 40))
        yield Ask(f"{kind.name.replace(' ', '-')}-{number}", kind, leaves, " ".join(words))


@dataclass
class Clients:
    gateway: Gateway
    secret: str
    poor_secret: str

    async def call_all(self, wave: Iterator[Ask]) -> None:
        async def call_again_and_again() -> None:
            for ask in wave:
                async with asyncio.timeout(PATIENCE_S):
                    await self.call(ask)

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(call_again_and_again())

    async def call(self, ask: Ask) -> None:
        """Read to the end, or leave when it is time; a status that was not to be expected is an AssertionError."""
        body, secret = ask.body(), self.poor_secret if ask.kind.is_poor else self.secret
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        writer.write(
            f"POST {CHAT} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {secret}\r\nConnection: close\r\n"
            f"X-Client-Request-Id: {ask.id}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        if ask.leaves == 0:
            await asyncio.sleep(random.Random(ask.id).uniform(0, 0.5))
        else:
            head = await reader.readuntil(b"\r\n\r\n")
            assert int(head[9:12]) in ask.kind.statuses, (ask.id, head)
            await read_events(reader, ask.leaves)
        writer.close()


async def read_events(reader: asyncio.StreamReader, count: int | None) -> None:
    """So many of them; all there is where `count` is None, or when there are not so many."""
    seen = 0
    while seen != count and (line := await reader.readline()):
        seen += line.startswith(b"data: ")


@dataclass
class Books:
    """What the simulator says it generated: by request id of the gateway, and as its own counters have it."""

    stand: Stand
    generated: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before = self._counters()

    def close_wave(self, calls: int) -> None:
        """Every call so far is in the ledger and the simulator at rest: note what it did."""
        self.stand.until(lambda: self.stand.running() == 0, "the simulator goes on")
        self.stand.until(lambda: drain_journal() == 0 and UsageRecord.objects.count() >= calls, "calls are missing", PATIENCE_S)
        for record in self.stand.vllm.requests():
            request_id, _, attempt = record["headers"]["x-request-id"].rpartition("-")
            assert attempt == "1", "there is one backend"
            assert request_id not in self.generated
            self.generated[request_id] = (record["prompt_tokens"], record["completion_tokens"])
        self.stand.vllm.reset()

    def totals(self) -> tuple[int, ...]:
        """Prompt and completion tokens since this was made."""
        return tuple(now - before for now, before in zip(self._counters(), self._before, strict=True))

    def _counters(self) -> tuple[int, int]:
        counters = self.stand.vllm.metrics()
        return int(counters["prompt_tokens_total"]), int(counters["generation_tokens_total"])


def noon_zone() -> str:
    """Where it is noon now: no day or month ends while the test runs."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


def prepare(stand: Stand) -> tuple[str, str]:
    """Prices, limits nobody reaches on tenant, alias and key, and a limit of one token on a key of its own. Both secrets."""
    stand.acme.time_zone = noon_zone()
    stand.acme.save()
    alias = ModelAlias.objects.get(tenant=stand.acme)
    alias.price_prompt, alias.price_completion = 3, 15
    alias.save()
    key, secret = stand.issue(name="controller", scopes=("chat", "models", "usage:tenant"))
    poor_key, poor_secret = stand.issue(name="poor")
    for name in TOKEN_LIMITS:
        for subject in ({"tenant": stand.acme}, {"alias": alias}, {"key": key}):
            Limit.objects.create(**subject, name=name, max=PLENTY)
    Limit.objects.create(tenant=stand.acme, name="money_per_month", max=PLENTY)
    Limit.objects.create(key=poor_key, name="tokens_per_day", max=1)
    publish()
    return secret, poor_secret


@pytest.mark.xdist_group("heavy")
def test_every_token_is_found_in_every_book(stand: Stand, fresh_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    secret, poor_secret = prepare(stand)
    asked, books = list(asks(CALLS)), Books(stand)
    with portal(tmp_path / "portal") as portal_url:
        stand.gateway = fresh_gateway(workers=4, SEKISHO_PORTAL_URL=portal_url)
        await_configuration(stand)
        clients = Clients(stand.gateway, secret, poor_secret)
        for start in range(0, CALLS, WAVE):
            wave = asked[start : start + WAVE]
            asyncio.run(clients.call_all(iter(wave)))
            books.close_wave(start + len(wave))
        rows = list(UsageRecord.objects.all())
        assert Counter(row.client_request_id for row in rows) == Counter(ask.id for ask in asked)
        assert {(row.part, row.tenant_id) for row in rows} == {(0, stand.acme.id)}
        simulator_and_ledger_agree(books, rows, {ask.id: ask.kind for ask in asked})
        all_sums_agree(stand, secret, rows)


def simulator_and_ledger_agree(books: Books, rows: list[UsageRecord], kinds: dict[str, Kind]) -> None:
    """Call by call, and in all by the simulator's own counters."""
    counted = {str(row.request_id): (row.prompt_tokens, row.completion_tokens) for row in rows if row.usage_source == "backend"}
    assert counted == {request_id: books.generated[request_id] for request_id in counted}
    apart = [tokens for request_id, tokens in books.generated.items() if request_id not in counted]
    assert books.totals() == columns_summed([*counted.values(), *apart])
    for row in rows:
        kind = kinds[row.client_request_id]
        if row.usage_source == "none":
            assert (row.prompt_tokens, row.completion_tokens, row.cost_nano) == (0, 0, 0)
        assert (row.usage_source == "none") == (row.status != 200 and kind.name != "plain left"), (kind, row)
        assert (row.usage_source == "estimated") == (kind.name == "plain left"), (kind, row)
        if kind.leaves and kind.sim:  # those at full speed may leave too late
            assert row.outcome == "client_left", (kind, row)
    tally = Counter((row.usage_source, row.outcome) for row in rows)
    print(f"{len(rows)} calls {dict(tally)}; {columns_summed(counted.values())} tokens counted, {columns_summed(apart)} apart")


def all_sums_agree(stand: Stand, secret: str, rows: list[UsageRecord]) -> None:
    """Ledger, rollups, GET /v1/usage and the counters of tenant, alias and key, estimates included."""
    prompt, completion, cost = columns_summed([row.prompt_tokens, row.completion_tokens, row.cost_nano] for row in rows)
    for rollup in (MinuteRollup, HourRollup, DayRollup, MinuteAllKeys, HourAllKeys, DayAllKeys, DayKey):
        summed = rollup.objects.aggregate(*(Sum(name, default=0) for name in ("requests", *SUMS)))
        assert list(summed.values()) == [len(rows), prompt, completion, cost], rollup
    for bucket in ("minute", "hour", "day", "month"):
        report = stand.get("/v1/usage", secret=secret, params={"bucket": bucket}).json()
        expected = [len(rows), prompt, completion, prompt + completion]
        for name, value in zip(("requests", "prompt_tokens", "completion_tokens", "total_tokens"), expected, strict=True):
            assert report["total"][name] == value == sum(row[name] for row in report["data"]), (bucket, name)
        assert report["total"]["cost"] == units(cost)
    limits = stand.get("/v1/limits", secret=secret).json()["data"]
    used = {(row["subject"], row["limit"]): (row["used"], row["reserved"]) for row in limits}
    expected_of_tokens = {(subject, name): (prompt + completion, 0) for subject in SUBJECTS for name in TOKEN_LIMITS}
    assert used == expected_of_tokens | {("tenant", "money_per_month"): (units(cost), "0")}


def columns_summed(rows: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True)))
