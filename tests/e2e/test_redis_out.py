"""Redis killed, emptied, set back, frozen and cut off under load: no limit is overrun, no call is lost or posted twice.

Each test has a Valkey and a gateway of its own. Tenants whose store_out is `closed` are refused while Redis is out, those
with `degraded` are served on.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from django.conf import settings as django_settings

from accounts.models import Tenant
from gateway.models import Limit, ModelAlias
from portal import embedded
from tests import processes
from tests.e2e.conftest import CHAT, Stand
from tests.proofs import full
from usage.counters import quota_counters
from usage.limits import BoundLimit
from usage.limits import Limit as Bound
from usage.models import UsageRecord
from usage.partitions import leases_key, partition
from usage.posting import drain_journal
from usage.quota import LEASE_S, Quota
from usage.reservation import LimitState
from usage.store import StoreUnavailable, connect

pytestmark = pytest.mark.xdist_group("redis_out")

WORKERS = 2
OUT_S = 40.0 if full() else 1.0  # at full size longer than a lease
CALLERS = 16 if full() else 5  # of each tenant
STREAMS = 4  # of each tenant, which run through the outage
STREAM_TOKENS, STREAM_TOKENS_A_S = (3500, 70) if full() else (450, 50)
SLOTS = 8
HOUR_TOKENS = 40_000 if full() else 9_000
A_MINUTE = 30
MANY = 10**6
PATIENCE_S = 90.0  # of one call
ANSWERED_S = 5.0  # a guard for a busy machine: two time-outs of 0.25 s twice, for those who find out; nothing for the others
BACK_S = 60.0  # a guard: 1 to 6 s
EDGE_S = 10.0  # a window moves on by one bucket a second


# --- The servers


class Server:
    """A Valkey of this test's own, which is killed, set back and started again. It keeps its data as the embedded one does."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._store = embedded.start_valkey(state)
        self._data, self._copy = state / "valkey", state / "copy"
        self._socket = self._store.sockets / "valkey.sock"
        self.url = self._store.url

    def kill(self) -> None:
        self._store.process.kill()
        self._store.process.wait()

    def kill_after_a_copy(self) -> None:
        shutil.copytree(self._data, self._copy)
        time.sleep(1.0)  # what Redis is allowed to lose
        self.kill()

    def start(self) -> None:
        self._store = embedded.start_valkey(self._state)

    def start_empty(self) -> None:
        shutil.rmtree(self._data)
        self.start()

    def start_from_copy(self) -> None:
        shutil.rmtree(self._data)
        self._copy.rename(self._data)
        self.start()

    def freeze(self) -> None:
        self._store.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._store.process.send_signal(signal.SIGCONT)

    def cut_off(self) -> None:
        """No connection lives, and none can be made; the server knows nothing of it."""
        with connect(self.url) as client:
            client.ping()
            self._socket.rename(self._socket.with_suffix(".away"))
            client.client_kill_filter(skipme=True)

    def join(self) -> None:
        self._socket.with_suffix(".away").rename(self._socket)

    def stop(self) -> None:
        self.thaw()
        self._store.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "server")
    yield running
    running.stop()


@pytest.fixture
def valkey(server: Server, settings: Any) -> Iterator[redis.Redis]:
    settings.REDIS_URL = server.url
    with connect(server.url) as client:
        yield client


@pytest.fixture
def environment() -> dict[str, str]:
    return {}


@pytest.fixture
def gateway_process(server: Server, tmp_path: Path, environment: dict[str, str]) -> Iterator[processes.Gateway]:
    with processes.gateway(tmp_path / "gateway", workers=WORKERS, redis_url=server.url, **environment) as running:
        yield running


@pytest.fixture
def celery(stand: Stand, server: Server, tmp_path: Path) -> Iterator[None]:
    """The worker with beat inside, on this test's stores."""
    log = tmp_path / "celery.log"
    command = [sys.executable, "-m", "celery", "-A", "portal.celery", "worker", "--beat", "--pool", "threads", "-c", "2"]
    command += ["--schedule", str(tmp_path / "schedule"), "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "portal.settings.web",
        "DATABASE_URL": processes._database_url(),
        "REDIS_URL": server.url,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=processes.PROJECT, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        processes.wait_until(lambda: " ready." in log.read_text(), log.read_text, process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# --- Who calls


@dataclass(frozen=True)
class Answer:
    """What a caller saw. tokens: as the answer itself tells. is_whole: a plain body, or a stream to its [DONE]."""

    began_s: float
    ended_s: float
    status: int
    headers: dict[str, str]
    code: str = ""
    tokens: int = 0
    is_whole: bool = False


class Clients:
    """Callers in a thread of their own, each call on a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._tasks: list[Future[Any]] = []
        self._ends = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """What was begun goes on until the block ends; then the last answers are awaited."""
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            yield
        finally:
            self._ends = True
            try:
                for task in self._tasks:
                    task.result(PATIENCE_S)
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)
                thread.join()
                self._loop.close()

    def begin(self, secret: str, answers: list[Answer], **body: Any) -> "Future[Answer]":
        """One call. answers: gets what came of it."""
        return self._run(self._call(secret, answers, body))

    def keep_calling(self, secret: str, answers: list[Answer], *, pause_s: float = 0.0) -> None:
        """One call after the other, plain and streamed."""
        self._run(self._call_on(secret, answers, pause_s, random.Random(len(self._tasks))))

    def _run(self, work: Any) -> "Future[Any]":
        self._tasks.append(asyncio.run_coroutine_threadsafe(work, self._loop))
        return self._tasks[-1]

    async def _call_on(self, secret: str, answers: list[Answer], pause_s: float, dice: random.Random) -> None:
        while not self._ends:
            answer = await self._call(secret, answers, {"stream": dice.random() < 0.5, "max_tokens": dice.randint(5, 30)})
            await asyncio.sleep(pause_s if answer.status == 200 else dice.uniform(0.1, 0.2))

    async def _call(self, secret: str, answers: list[Answer], body: dict[str, Any]) -> Answer:
        asked = {"model": "general", "messages": [{"role": "user", "content": "Go on"}], "ignore_eos": True} | body
        if asked.get("stream"):
            asked["stream_options"] = {"include_usage": True}
        payload = json.dumps(asked).encode()
        began_s = time.time()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(
                f"POST {CHAT} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {secret}\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
                + payload
            )
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                answers.append(answer_of(began_s, head, await reader.read(-1)))
        finally:
            writer.close()
        return answers[-1]


def answer_of(began_s: float, head: bytes, text: bytes) -> Answer:
    first, *lines = head.decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status, is_whole, ended_s = int(first.split()[1]), True, time.time()
    if status != 200:
        return Answer(began_s, ended_s, status, headers, code=json.loads(text)["error"]["code"])
    if headers["content-type"].startswith("text/event-stream"):
        is_whole = b"\ndata: [DONE]\n" in text[-100:]  # before the last, empty chunk
        text = next(line[6:] for line in reversed(text.split(b"\n")) if b'"usage":{' in line)
    return Answer(began_s, ended_s, status, headers, tokens=json.loads(text)["usage"]["total_tokens"], is_whole=is_whole)


@dataclass
class Caller:
    """A tenant with limits of its own, and every call of it. minute_secret: a key that may call A_MINUTE times in one."""

    tenant: Tenant
    secret: str
    minute_secret: str
    limits: tuple[BoundLimit, ...]
    answers: list[Answer] = field(default_factory=list)
    minute: list[Answer] = field(default_factory=list)
    streams: list["Future[Answer]"] = field(default_factory=list)

    def begin_streams(self, clients: Clients) -> None:
        """And one plain call, that takes as long."""
        message = {"role": "user", "content": f"[[sim tokens_per_s={STREAM_TOKENS_A_S}]]"}
        for number in range(STREAMS):
            body = {"stream": number > 0, "max_tokens": STREAM_TOKENS, "messages": [message]}
            self.streams.append(clients.begin(self.secret, self.answers, **body))

    def begin_calls(self, clients: Clients) -> None:
        for _ in range(CALLERS):
            clients.keep_calling(self.secret, self.answers)
        clients.keep_calling(self.minute_secret, self.minute, pause_s=0.2)

    def states(self, client: redis.Redis, now_s: float) -> list[LimitState]:
        return Quota(client).state(str(self.tenant.id), self.limits, time_zone=self.tenant.time_zone, now_s=now_s)

    def outcomes(self, *, since_s: float = 0.0, until_s: float = inf) -> Counter[tuple[int, str]]:
        """Status and code of the calls that began and ended in that time."""
        chosen = (answer for answer in list(self.answers) if since_s < answer.began_s and answer.ended_s < until_s)
        return Counter((answer.status, answer.code) for answer in chosen)


def caller(stand: Stand, *, slug: str, store_out: str) -> Caller:
    """Known to every worker, limits and all."""
    tenant = Tenant.objects.create(slug=slug, name=slug.title(), store_out=store_out)
    ModelAlias.objects.create(tenant=tenant, name="general", deployment=stand.deployment)
    (_, secret), (minute, minute_secret) = (stand.issue(tenant, name=name) for name in ("all", "minute"))
    maxima = {
        "tokens_per_hour": HOUR_TOKENS, "tokens_per_day": MANY, "tokens_per_month": MANY, "requests_per_minute": MANY,
        "concurrent_requests": SLOTS,
    }  # fmt: skip
    Limit.objects.create(key=minute, name="requests_per_minute", max=A_MINUTE)
    limits = [BoundLimit("key", str(minute.id), Bound("requests_per_minute", A_MINUTE))]
    limits += limited(stand, tenant, **maxima)
    for known in (secret, minute_secret):
        stand.until(lambda key=known: is_known(stand, key), "no key")
    return Caller(tenant, secret, minute_secret, tuple(limits))


def is_known(stand: Stand, secret: str) -> bool:
    """To every worker."""
    return all(stand.get("/v1/models", secret=secret).ok for _ in stand.gateway.each_worker())


def limited(stand: Stand, tenant: Tenant, **maxima: int) -> list[BoundLimit]:
    """Limits of the tenant, once every worker knows them."""
    for name, most in maxima.items():
        Limit.objects.create(tenant=tenant, name=name, max=most)
    _, secret = stand.issue(tenant, name="looking", scopes=["usage"])

    def are_told() -> bool:
        answer = stand.get("/v1/limits", secret=secret)
        return answer.ok and {limit["limit"] for limit in answer.json()["data"]} == set(maxima)

    stand.until(lambda: all(are_told() for _ in stand.gateway.each_worker()), "the limits did not arrive")
    return [BoundLimit("tenant", str(tenant.id), Bound(name, most)) for name, most in maxima.items()]


# --- What is looked at


@dataclass
class Watch:
    """The most at any moment. running: calls on the backend; taken: used and reserved, by tenant and limit; lease_s: left."""

    running: int = 0
    taken: Counter[tuple[str, BoundLimit]] = field(default_factory=Counter)
    lease_s: float = 0.0


@contextmanager
def watched(stand: Stand, *callers: Caller) -> Iterator[Watch]:
    seen, stop = Watch(), threading.Event()

    def look_at(one: Caller, client: redis.Redis) -> None:
        for state in one.states(client, time.time()):
            at = one.tenant.store_out, state.bound
            seen.taken[at] = max(seen.taken[at], state.used + state.reserved)
        last: Any = client.zrange(leases_key(partition(str(one.tenant.id))), -1, -1, withscores=True)
        seen.lease_s = max([seen.lease_s, *(ends_ms / 1000 - time.time() for _, ends_ms in last)])

    def look() -> None:
        with connect(django_settings.REDIS_URL) as client:
            while not stop.wait(0.02):
                seen.running = max(seen.running, stand.running())
                for one in callers:
                    with suppress(StoreUnavailable, redis.RedisError):
                        look_at(one, client)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield seen
        finally:
            stop.set()
            looking.result()


def posted(tenant: Tenant) -> dict[str, list[UsageRecord]]:
    """What the ledger has of each call, by its request id, once everything that is on the journal is in it."""
    drain_journal()
    rows: dict[str, list[UsageRecord]] = {}
    for row in UsageRecord.objects.filter(tenant_id=tenant.id).order_by("part"):
        rows.setdefault(str(row.request_id), []).append(row)
    return rows


def assert_books_agree(stand: Stand, one: Caller) -> int:
    """Every call is in the ledger, once, with what its caller was told; Redis holds these sums, and nothing besides.

    Returns how many tokens they come to.
    """
    answers = one.answers + one.minute
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == len(answers)
    stand.until(lambda: ids <= set(posted(one.tenant)), lambda: f"not posted: {ids - set(posted(one.tenant))}", BACK_S)
    rows = posted(one.tenant)
    assert set(rows) == ids
    for answer in answers:
        parts = rows[answer.headers["x-request-id"]]
        assert [row.part for row in parts] == list(range(len(parts)))
        tokens = sum(row.prompt_tokens + row.completion_tokens for row in parts)
        assert (parts[-1].status, tokens) == (answer.status, answer.tokens)
    number = partition(str(one.tenant.id))
    stand.until(lambda: Quota(stand.store).is_alive(number), "the counters are not restored", BACK_S)
    assert stand.store.zcard(leases_key(number)) == 0
    # Redis counts a call in the second in which it was admitted, the ledger where it began: a window's edge may divide them.
    stand.until(lambda: not disagreeing(stand, one), lambda: disagreeing(stand, one), EDGE_S)
    return sum(row.prompt_tokens + row.completion_tokens for parts in rows.values() for row in parts)


def disagreeing(stand: Stand, one: Caller) -> list[LimitState]:
    """The limits of which Redis holds, at this moment, something else than the ledger."""
    ledger: Counter[tuple[str, str]] = Counter()
    now_s = time.time()
    for counter in quota_counters(str(one.tenant.id), one.tenant.time_zone, one.limits, now_s=now_s):
        ledger[counter.subject, counter.name] += counter.used
    states = one.states(stand.store, now_s)
    return [
        state for state in states if (state.used, state.reserved) != (ledger[state.bound.subject, state.bound.limit.name], 0)
    ]


def assert_no_minute_holds_more(answers: list[Answer], most: int) -> None:
    admitted = sorted(answer.began_s for answer in answers if answer.status == 200)
    assert all(later - first > 59 for first, later in zip(admitted, admitted[most:], strict=False))


# --- Outages under load

IN_FORCE = {(200, ""), (429, "token_quota_exceeded")}
OUTAGES: dict[str, tuple[Callable[[Server], None], Callable[[Server], None]]] = {
    "frozen": (Server.freeze, Server.thaw),
    "cut off": (Server.cut_off, Server.join),
    "killed, a second behind": (Server.kill_after_a_copy, Server.start_from_copy),
    "killed, empty": (Server.kill, Server.start_empty),
}


@pytest.mark.usefixtures("celery")
def test_no_outage_forgets_a_limit_or_loses_a_call(stand: Stand, server: Server, subtests: pytest.Subtests) -> None:
    stand.vllm.knobs(first_token_ms=10, tokens_per_s=300)
    for number, (name, (begin, end)) in enumerate(OUTAGES.items()):
        with subtests.test(name):
            closed = caller(stand, slug=f"closed-{number}", store_out="closed")
            degraded = caller(stand, slug=f"degraded-{number}", store_out="degraded")
            survive(stand, closed, degraded, begin=lambda go=begin: go(server), end=lambda come=end: come(server))


def survive(stand: Stand, closed: Caller, degraded: Caller, *, begin: Callable[[], None], end: Callable[[], None]) -> None:
    both, clients = (closed, degraded), Clients(stand.gateway.port)
    with watched(stand, *both) as seen, clients.running():
        for one in both:
            one.begin_streams(clients)
        stand.until(lambda: stand.running() == len(both) * STREAMS, "the streams do not begin", BACK_S)
        for one in both:
            one.begin_calls(clients)
        stand.until(lambda: all(one.outcomes()[200, ""] > 30 for one in both), "too few calls", BACK_S)
        begin()
        out_s = time.time()
        stand.until(lambda: closed.outcomes(since_s=out_s)[503, "overloaded"] > 5, "nobody is refused", BACK_S)
        stand.until(lambda: degraded.outcomes(since_s=out_s)[200, ""] > 5, "nobody is served", BACK_S)
        time.sleep(OUT_S)
        back_s = time.time()
        end()
        # Or refused by the hour's limit, if all of that was used before: either tells that limits are in force.
        stand.until(lambda: not IN_FORCE.isdisjoint(closed.outcomes(since_s=back_s)), "nobody is let in again", BACK_S)
        print(f"out for {back_s - out_s:.1f} s, in force again after {time.time() - back_s:.1f} s", end=", ")
        stand.until(lambda: all(one.outcomes()[429, "token_quota_exceeded"] for one in both), "no end", 2 * BACK_S)

    print(f"{len(closed.answers)} and {len(degraded.answers)} calls")
    for one in both:
        assert all(stream.result().is_whole for stream in one.streams)
        assert assert_books_agree(stand, one) <= (HOUR_TOKENS if one is closed else at_worst(HOUR_TOKENS))
    assert set(closed.outcomes(since_s=out_s, until_s=back_s)) == {(503, "overloaded")}
    assert not any(status >= 500 for status, _ in degraded.outcomes())
    assert max(answer.ended_s - answer.began_s for answer in closed.answers if answer.status == 503) < ANSWERED_S
    assert_no_minute_holds_more(closed.minute, A_MINUTE)
    assert_no_minute_holds_more(degraded.minute, at_worst(A_MINUTE))
    assert seen.running <= SLOTS + at_worst(SLOTS)
    for (store_out, bound), most in seen.taken.items():
        assert most <= (bound.limit.max if store_out == "closed" else at_worst(bound.limit.max)), bound
    assert seen.lease_s <= LEASE_S


def at_worst(limit: int) -> int:
    """How much a limit may be overrun by workers who know of each other only what Redis told last: nothing, and everything."""
    return limit + limit * (WORKERS - 1) // WORKERS


# --- What callers are told

FORMS = {"openai": {"error"}, "detail": {"detail"}, "both": {"error", "detail"}}
WORDS = "The service is temporarily overloaded. Please try again later."


def fill(server: Server) -> None:
    """It answers, and takes nothing more."""
    with connect(server.url) as client:
        client.config_set("maxmemory", 1)


def make_room(server: Server) -> None:
    with connect(server.url) as client:
        client.config_set("maxmemory", 0)


def assert_told_to_wait(answer: requests.Response, form: set[str]) -> None:
    body = answer.json()
    assert (answer.status_code, set(body)) == (503, form)
    assert body.get("detail", WORDS) == WORDS
    assert body.get("error", {"message": WORDS})["message"] == WORDS
    if "error" in form:
        assert body["error"] == {"type": "server_error", "code": "overloaded", "message": WORDS, "param": None}
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("1", "1000")
    assert answer.headers["x-request-id"]
    assert not [name for name in answer.headers if name.lower().startswith(("x-ratelimit", "x-should-retry"))]


def are_all(stand: Stand, status: int, **options: Any) -> bool:
    """On every worker."""
    return all(stand.post({"max_tokens": 1}, **options).status_code == status for _ in stand.gateway.each_worker())


def test_closed_tells_every_caller_to_wait(stand: Stand, server: Server, subtests: pytest.Subtests) -> None:
    limited(stand, stand.acme, tokens_per_hour=MANY, concurrent_requests=SLOTS)
    secrets = {form: stand.issue(name=form, error_dialect=form)[1] for form in FORMS}
    _, looking = stand.issue(name="usage", scopes=["usage"])
    stand.until(lambda: all(stand.get("/v1/limits", secret=looking).ok for _ in stand.gateway.each_worker()), "no key")
    shadow, free = (Tenant.objects.create(slug=slug, name=slug) for slug in ("shadow", "free"))
    for tenant in (shadow, free):
        ModelAlias.objects.create(tenant=tenant, name="general", deployment=stand.deployment)
    Limit.objects.create(tenant=shadow, name="tokens_per_hour", max=1, mode="shadow")
    unhindered = [stand.issue(tenant, name="ci")[1] for tenant in (shadow, free)]
    for secret in (*secrets.values(), *unhindered, stand.secret):
        stand.until(lambda key=secret: are_all(stand, 200, secret=key), "not everybody is served yet")
    for name, (begin, end) in (OUTAGES | {"full": (fill, make_room), "killed": (Server.kill, Server.start)}).items():
        if name.startswith("killed, "):  # counters are not restored without a worker
            continue
        with subtests.test(name):
            _, unseen = stand.issue(name=f"not seen when {name}")
            begin(server)
            stand.vllm.reset()
            for form, secret in secrets.items():
                for stream in (False, True):
                    began = time.monotonic()
                    assert_told_to_wait(stand.post({"stream": stream}, secret=secret), FORMS[form])
                    assert time.monotonic() - began < ANSWERED_S
            assert stand.vllm.requests() == []
            assert_told_to_wait(stand.get("/v1/limits", secret=looking), FORMS["openai"])
            if name != "full":  # which can be read: then the key is known
                assert_told_to_wait(stand.post(secret=unseen), FORMS["both"])
            assert stand.get("/v1/models").status_code == 200
            for secret in unhindered:
                assert are_all(stand, 200, secret=secret)
            end(server)
            stand.until(lambda: all(are_all(stand, 200, secret=key) for key in secrets.values()), "closed for ever", BACK_S)
            assert stand.post().headers["x-ratelimit-limit-tokens"] == str(MANY)


@dataclass(frozen=True)
class Served:
    """A tenant that is served on, with one limit."""

    tenant: Tenant
    secret: str
    limits: tuple[BoundLimit, ...]


def served_on(stand: Stand, **maxima: int) -> Served:
    (name,) = maxima
    tenant = Tenant.objects.create(slug=name.replace("_", "-"), name=name, store_out="degraded")
    ModelAlias.objects.create(tenant=tenant, name="general", deployment=stand.deployment)
    _, secret = stand.issue(tenant, name="ci")
    limits = limited(stand, tenant, **maxima)
    stand.until(lambda: is_known(stand, secret), "no key")
    return Served(tenant, secret, tuple(limits))


def call_until_refused(stand: Stand, one: Served, body: dict[str, Any], expected: int) -> tuple[int, requests.Response]:
    """Eight at once call each worker until so many are admitted, and not one more. What the last one used, and a refusal."""
    admitted: list[requests.Response] = []
    refusals: list[requests.Response] = []

    def call(_: int) -> None:
        answer = stand.post(body, secret=one.secret)
        (admitted if answer.status_code == 200 else refusals).append(answer)

    def have_all() -> bool:
        for _ in stand.gateway.each_worker():
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(call, range(8)))
        return len(admitted) >= expected

    stand.until(have_all, lambda: f"{len(admitted)} are admitted", 40)
    have_all()
    assert len(admitted) == expected
    for answer in admitted:
        told = answer.headers.get("x-ratelimit-limit-requests") or answer.headers["x-ratelimit-limit-tokens"]
        assert int(told) == one.limits[0].limit.max
    return admitted[-1].json()["usage"]["total_tokens"], refusals[-1]


def test_degraded_enforces_the_share_of_each_worker(stand: Stand, server: Server) -> None:
    """Of 11 calls a minute 5, of 2,001 tokens 1,000, of 5 slots 2: all of what the two have is less than the limit."""
    minute, hour, slots = (
        served_on(stand, **limit)
        for limit in ({"requests_per_minute": 11}, {"tokens_per_hour": 2001}, {"concurrent_requests": 5})
    )
    server.kill()

    _, refusal = call_until_refused(stand, minute, {"max_tokens": 1}, 10)
    assert_refused(refusal, "rate_limited", "Too many requests in a minute. Limit: 11")
    assert 1 <= int(refusal.headers["retry-after"]) <= 61
    assert refusal.headers["x-ratelimit-remaining-requests"] == "0"

    used, refusal = call_until_refused(stand, hour, {"max_tokens": 600, "ignore_eos": True}, 2)
    assert_refused(refusal, "token_quota_exceeded", f"Hourly token limit exceeded. Current usage: {1001 + used}, Limit: 2001")
    assert refusal.headers["x-should-retry"] == "false"  # it fits again when Redis is back, or in an hour
    assert refusal.headers["x-ratelimit-remaining-tokens"] == str(1000 - used)

    clients, answers = Clients(stand.gateway.port), []
    stand.vllm.knobs(tokens_per_s=10)
    with clients.running():
        for at, _ in enumerate(stand.gateway.each_worker(), 1):
            for _ in range(20):
                clients.begin(slots.secret, answers, stream=True, max_tokens=120)
            stand.until(lambda at=at: len(answers) >= 18 * at, "not all are refused")
        stand.until(lambda: stand.running() == 4, "those that were admitted do not run")
        stand.vllm.reset()
        server.start()  # while they run
    assert Counter((answer.status, answer.code) for answer in answers) == {
        (200, ""): 4,
        (429, "concurrency_limit_exceeded"): 36,
    }

    for one in (minute, hour, slots):
        stand.until(lambda one=one: is_told(stand, one), "Redis is not told what was used", BACK_S)
        stand.until(lambda one=one: stand.post(secret=one.secret).status_code in (200, 429), "no end", BACK_S)


def assert_refused(answer: requests.Response, code: str, words: str) -> None:
    assert answer.status_code == 429
    assert answer.json() == {"error": {"type": "rate_limited", "code": code, "message": words, "param": None}}
    assert int(answer.headers["retry-after-ms"]) > 0


def is_told(stand: Stand, one: Served) -> bool:
    """Does Redis hold what the ledger does, and was anything used at all?"""
    drain_journal()
    now_s = time.time()
    counters = quota_counters(str(one.tenant.id), one.tenant.time_zone, one.limits, now_s=now_s)
    (state,) = Quota(stand.store).state(str(one.tenant.id), one.limits, time_zone=one.tenant.time_zone, now_s=now_s)
    return (state.used, state.reserved) == (sum(counter.used for counter in counters), 0)


@pytest.mark.parametrize("environment", [{"SEKISHO_DEGRADED_MAX_S": "1"}], ids=["1 s"])
def test_degraded_is_closed_after_its_time_and_normal_when_redis_is_back(stand: Stand, server: Server) -> None:
    one = served_on(stand, tokens_per_hour=MANY)
    server.kill()
    assert stand.post(secret=one.secret).status_code == 200
    stand.until(lambda: are_all(stand, 503, secret=one.secret), "served for ever", BACK_S)
    assert_told_to_wait(stand.post(secret=one.secret), FORMS["openai"])
    server.start()
    stand.until(lambda: are_all(stand, 200, secret=one.secret), "closed for ever", BACK_S)
    server.kill()
    assert stand.post(secret=one.secret).status_code == 200  # it has its time again
    server.start()
    stand.until(lambda: is_told(stand, one), "Redis is not told what was used", BACK_S)
