"""Whatever is killed: each call is posted once, what it held comes free, and ledger, rollups and counters agree.

Every process here is this module's own. A kill is SIGKILL, and its moment is made certain: by a lock that the one who is to be
killed waits for, or by a pause of all writes to Valkey, of which nothing is carried out later for who is dead by then.
"""

import concurrent.futures
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import requests
from uuid_utils.compat import uuid7

from portal import embedded
from tests import processes
from tests.e2e.conftest import CHAT
from tests.processes import PROJECT, frozen, wait_until
from tests.proofs import full
from tests.simulator import Simulator, simulator
from usage.events import UsageEvent
from usage.lag import JOURNAL_MAX, journal_lag
from usage.limits import BoundLimit, Limit
from usage.partitions import PARTITIONS, base, journal_key, leases_key, partition
from usage.posting import GROUP, LOCK, LOCK_S
from usage.quota import LEASE_S, Quota
from usage.settling import ALARMED

pytestmark = pytest.mark.xdist_group("crashes")

HELD_MOST_S = 45.0  # of what a dead worker held: its lease, and the reaper's next turn
STREAMS, PLAIN = (200 if full() else 40), 5
BACKLOG = 120_000 if full() else 6_000
OUTAGE_S = 60.0 if full() else 5.0
CLIENTS = 8
TENANTS = ("streaming", "posting", "calling")  # one a test
COUNTED = ("tokens_per_hour", "tokens_per_day", "tokens_per_month", "money_per_month")
# It is about noon there: no day and no month ends while a test runs.
NOON = f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


@dataclass
class House:
    """Every process of an installation, and what a test asks of them. worker: celery with beat, in a group of its own."""

    folder: Path
    postgres: embedded.Store
    valkey: embedded.Store
    store: redis.Redis
    vllm: Simulator
    gateway: processes.Gateway
    environment: dict[str, str]
    worker: "subprocess.Popen[bytes] | None" = None
    ids: dict[str, str] = field(default_factory=dict)  # of the tenants, and as `tenant/key` of their keys

    def start_worker(self) -> None:
        """What a killed one has locked stays so for 10 s: waited for in the full run alone."""
        assert self.store.pttl(LOCK) <= LOCK_S * 1000
        if not full():
            self.store.delete(LOCK)
        command = ["-m", "celery", "-A", "portal.celery", "worker", "--beat", "--without-mingle", "--loglevel", "WARNING"]
        with (self.folder / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [sys.executable, *command], cwd=PROJECT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill_worker(self) -> None:
        """The worker, its pool and beat, at once."""
        if self.worker is not None:
            os.killpg(self.worker.pid, signal.SIGKILL)
            self.worker.wait()
            wait_until(lambda: not living(group=self.worker.pid), "it lives")
            self.worker = None
            self.store.ping()  # when that is answered, Valkey has seen the ends of their connections

    def kill_gateway_worker(self, pid: int) -> float:
        """When it was dead for certain, in Unix seconds."""
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in living(), "it lives")
        self.store.ping()
        return time.time()

    def start_postgres(self) -> None:
        """After a kill its last backends may need a moment to see it, and hold the data until then."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self.postgres = embedded.start_postgres(self.folder)
            except embedded.StoreFailed:
                assert time.monotonic() < deadline
            else:
                return

    def stop_postgres(self) -> None:
        self.postgres.stop()

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PROJECT / "manage.py"), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    @contextmanager
    def database(self) -> Iterator["psycopg.Connection[Any]"]:
        """One transaction."""
        with psycopg.connect(self.postgres.url) as connection:
            yield connection

    def rows(self, sql: str, *values: object) -> list[Any]:
        with self.database() as connection:
            return connection.execute(sql, values).fetchall()

    def posted(self, tenant: str) -> int:
        return int(self.rows("SELECT count(*) FROM usage_usagerecord WHERE tenant = %s", tenant)[0][0])

    def send(self, tenant: str, key: str = "ci", *, sim: str = "", **body: Any) -> HTTPConnection:
        """POST a chat completion, and wait for nothing. sim: knobs of the simulator for this call."""
        whole = {"model": "general", "messages": [{"role": "user", "content": f"[[sim {sim}]] Hello"}]} | body
        headers = {"Authorization": f"Bearer {secret(tenant, key)}", "Content-Type": "application/json", "Connection": "close"}
        connection = HTTPConnection("127.0.0.1", self.gateway.port, timeout=120)
        connection.request("POST", CHAT, json.dumps(whole), headers)
        return connection

    def call(self, tenant: str, key: str = "ci", **options: Any) -> "Answer":
        """The whole answer of send()."""
        return read(self.send(tenant, key, **options))

    def states(self, tenant: str, limits: dict[str, tuple[str, str]], *, now_s: float) -> dict[str, tuple[int, int]]:
        """Used and reserved by the limit's name. limits: whose each is, its subject and id."""
        bound = [BoundLimit(*subject, Limit(name, 1)) for name, subject in limits.items()]
        states = Quota(self.store).state(self.ids[tenant], bound, time_zone=NOON, now_s=now_s)
        return {state.bound.limit.name: (state.used, state.reserved) for state in states}

    def on_journal(self) -> int:
        return journal_lag(self.store, now_s=time.time()).entries

    def handed_out(self) -> int:
        """Events that a worker has taken and not yet taken off the journal."""
        groups = [group for n in range(PARTITIONS) for group in self.store.xinfo_groups(journal_key(n))]
        return sum(int(group["pending"]) for group in groups if group["name"] == GROUP.encode())

    @contextmanager
    def writes_paused(self) -> Iterator[None]:
        """Valkey answers questions and nothing else; the commands of who dies meanwhile die with him."""
        self.store.client_pause(120_000, all=False)
        try:
            yield
        finally:
            self.store.client_unpause()


def secret(tenant: str, key: str) -> str:
    return f"made-up-secret-of-{tenant}-{key}"


def configuration(vllm: Simulator) -> str:
    """JSON, which is YAML too."""
    most = dict.fromkeys((*COUNTED, "requests_per_minute"), 9_000_000)
    tenants = [
        {
            "slug": slug,
            "name": slug,
            "time_zone": NOON,
            "limits": most,
            "aliases": [{"name": "general", "deployment": "tiny", "price": {"prompt": "0.5", "completion": "1.5"}}],
            "keys": [
                {"name": "ci", "secret": secret(slug, "ci"), "scopes": ["chat", "models"]},
                {"name": "full", "secret": secret(slug, "full"), "limits": {"concurrent_requests": STREAMS + PLAIN}},
            ],
        }
        for slug in TENANTS
    ]
    pool = [{"backend": "gpu-1", "weight": 1}]
    deployments = [{"name": "tiny", "served_model": "tiny", "max_model_len": 8192, "backends": pool}]
    return json.dumps({"backends": [{"name": "gpu-1", "url": vllm.url}], "deployments": deployments, "tenants": tenants})


@pytest.fixture
def house(whole_house: House) -> House:
    """With a worker, whatever the test before has left."""
    if whole_house.worker is None:
        whole_house.start_worker()
    return whole_house


@pytest.fixture(scope="module")
def whole_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with ExitStack() as stack:
        postgres, valkey = embedded.start_postgres(folder), embedded.start_valkey(folder, durable=False)
        stack.callback(lambda: shutil.rmtree((folder / "postgres").resolve(), ignore_errors=True))
        stack.callback(valkey.stop)
        store = stack.enter_context(redis.Redis.from_url(valkey.url))
        vllm = stack.enter_context(simulator())
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "portal.settings.web",
            "SEKISHO_HOME": str(folder),
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
        }
        gateway = stack.enter_context(processes.gateway(folder / "gateway", workers=2, redis_url=valkey.url))
        built = House(folder, postgres, valkey, store, vllm, gateway, environment)
        stack.callback(built.stop_postgres)
        stack.callback(built.kill_worker)
        prepare(built)
        yield built


def prepare(house: House) -> None:
    """Tables and tenants; then the worker publishes them, and the counters are whole."""
    (house.folder / "sekisho.yaml").write_text(configuration(house.vllm))
    for command in (("migrate", "--verbosity", "0"), ("apply", str(house.folder / "sekisho.yaml"))):
        done = house.manage(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    house.ids = dict(house.rows("SELECT slug, id::text FROM accounts_tenant"))
    house.ids |= dict(
        house.rows(
            "SELECT tenant.slug || '/' || key.name, key.id::text FROM accounts_apikey AS key "
            "JOIN accounts_tenant AS tenant ON tenant.id = key.tenant_id"
        )
    )
    house.start_worker()
    quota = Quota(house.store)
    wait_until(lambda: all(quota.is_alive(number) for number in range(PARTITIONS)), "the counters are not restored")
    for tenant in TENANTS:
        headers = {"Authorization": f"Bearer {secret(tenant, 'ci')}"}
        for _ in house.gateway.each_worker():
            wait_until(
                lambda headers=headers: requests.get(f"{house.gateway.url}/v1/models", headers=headers, timeout=30).ok,
                "the configuration did not arrive",
            )


def living(*, group: int | None = None) -> list[int]:
    """Processes that still have something open, of one process group or all."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _parent, own_group, *_ = (folder / "stat").read_text().rpartition(") ")[2].split()
            if state not in "ZX" and group in (None, int(own_group)):
                found.append(int(folder.name))
    return found


@dataclass(frozen=True)
class Answer:
    status: int
    id: str
    body: bytes

    @property
    def is_whole(self) -> bool:
        return self.status == 200 and self.body.endswith((b"data: [DONE]\n\n", b"}"))


def read(connection: HTTPConnection) -> Answer:
    with closing(connection):
        response = connection.getresponse()
        return Answer(response.status, response.headers["x-request-id"], response.read())


def is_cut(connection: HTTPConnection) -> bool:
    try:
        return not read(connection).is_whole
    except (HTTPException, OSError):
        return True


def ledger(house: House, tenant: str) -> dict[str, tuple[str, int, int]]:
    """Outcome, prompt and completion tokens of each call, once the journal is empty. Fails when one is there twice."""
    wait_until(lambda: not house.on_journal(), "the journal is never empty", seconds=300)
    assert journal_lag(house.store, now_s=time.time()).dead == 0
    rows = house.rows(
        "SELECT request_id::text, outcome, prompt_tokens, completion_tokens FROM usage_usagerecord WHERE tenant = %s", tenant
    )
    calls = {request_id: (outcome, prompt, completion) for request_id, outcome, prompt, completion in rows}
    assert len(calls) == len(rows)
    return calls


_BY = "key_id, alias, backend, status"
_SUMS = f"""
    SELECT {_BY}, {{requests}}, sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens), sum(cost_nano) FROM {{table}}
    WHERE tenant_id = %s GROUP BY {_BY} ORDER BY {_BY}
"""  # noqa: S608 - own names


def assert_rollups_are_the_ledger(house: House, tenant: str) -> None:
    """By key, alias, backend and status, in each of the three sizes."""
    records = house.rows(_SUMS.format(requests="count(*)", table="usage_usagerecord"), house.ids[tenant])
    assert records
    for span in ("minute", "hour", "day"):
        rollups = _SUMS.format(requests="sum(requests)", table=f"usage_{span}rollup")
        assert house.rows(rollups, house.ids[tenant]) == records


def assert_counters_are_the_ledger(house: House, tenant: str, *, now_s: float) -> None:
    """And nothing is held."""
    tokens, cost_nano = house.rows(
        "SELECT sum(prompt_tokens + completion_tokens)::int8, sum(cost_nano)::int8 FROM usage_usagerecord WHERE tenant = %s",
        tenant,
    )[0]
    whose = dict.fromkeys((*COUNTED, "concurrent_requests"), ("tenant", house.ids[tenant]))
    used = {name: (cost_nano if name == "money_per_month" else tokens, 0) for name in COUNTED}
    assert house.states(tenant, whose, now_s=now_s) == used | {"concurrent_requests": (0, 0)}


# ---- a worker of the gateway


@dataclass
class Doomed:
    """Of the worker that will be killed: ids of calls that ended, and of the live ones; what waits in the backend's queue.

    spared: streams of the other worker.
    """

    ended: list[str]
    live: list[HTTPConnection]
    streams: list[str]
    plain: list[str]
    queued: list[HTTPConnection]
    spared: list[HTTPConnection]


def test_what_a_killed_gateway_worker_served_is_posted_once_and_comes_free(house: House) -> None:
    tenant, key = "streaming", ("key", house.ids["streaming/full"])
    number = partition(house.ids[tenant])
    victim, other = house.gateway.workers()
    doomed = fill(house, victim, other)
    with house.writes_paused():
        house.vllm.knobs(max_num_seqs=1024)
        late = [read(connection) for connection in doomed.queued]
        assert all(answer.is_whole for answer in late)
        settled = [f"{base(number)}s:{answer.id}" for answer in late]
        assert house.store.exists(*settled) == 0  # only the worker's spool has them
        killed_s = house.kill_gateway_worker(victim)
    leases = leases_of(house, tenant)
    held = [*doomed.streams, *doomed.plain]
    assert all(leases[call] <= killed_s + LEASE_S for call in held)
    assert house.states(tenant, {"concurrent_requests": key}, now_s=killed_s + LEASE_S) == {"concurrent_requests": (0, 0)}
    refused = [house.call(tenant, "full")]
    while refused[-1].status == 503:  # until the other worker sees that Redis is back
        refused.append(house.call(tenant, "full"))
    assert (refused[-1].status, json.loads(refused[-1].body)["error"]["code"]) == (429, "concurrency_limit_exceeded")
    told = {call: told_of(house, tenant, call) for call in held}

    spared = [read(connection) for connection in doomed.spared]
    assert all(answer.is_whole for answer in spared)
    assert all(is_cut(connection) for connection in doomed.live)
    wait_until(lambda: len(set(house.gateway.workers()) - {victim}) == 2, "the master starts no other worker")
    wait_until(lambda: house.store.exists(*settled) == len(late), "nobody takes the spool over")
    now_s = reaped(house, tenant, held, killed_s)
    last = house.call(tenant, "full")
    assert last.is_whole

    whole = [*doomed.ended, *(answer.id for answer in (*late, *spared, last))]
    calls = ledger(house, tenant)
    outcomes = dict.fromkeys(whole, "completed") | dict.fromkeys(held, "lost")
    outcomes |= {answer.id: "refused" if answer.status == 429 else "failed" for answer in refused}
    assert {call: outcome for call, (outcome, *_) in calls.items()} == outcomes
    assert {call: calls[call][1:] for call in held} == told
    assert all(told[call][1] > 0 for call in doomed.streams)
    assert_rollups_are_the_ledger(house, tenant)
    assert_counters_are_the_ledger(house, tenant, now_s=now_s)


def fill(house: House, victim: int, other: int) -> Doomed:
    """Live calls for both workers, leases of the victim's renewed, and calls that the backend keeps waiting."""
    tenant = "streaming"
    endless: dict[str, Any] = {"stream": True, "max_tokens": 2000, "ignore_eos": True, "sim": "tokens_per_s=2"}
    with frozen(other):
        ended = [house.call(tenant, max_tokens=5, stream=number % 2 == 0) for number in range(20)]
        assert all(answer.is_whole for answer in ended)
        plain = [house.send(tenant, "full", sim="hang") for _ in range(PLAIN)]
        wait_until(lambda: len(leases_of(house, tenant)) == PLAIN, "the calls do not begin")
        of_plain = list(leases_of(house, tenant))
        streams = [house.send(tenant, "full", **endless) for _ in range(STREAMS)]
        wait_until(lambda: len(leases_of(house, tenant)) == PLAIN + STREAMS, "the streams do not begin")
    first = leases_of(house, tenant)
    of_streams = [call for call in first if call not in of_plain]

    def all_told() -> bool:
        """Each lease was renewed, and each stream's count told."""
        renewed = leases_of(house, tenant)
        return all(renewed[call] > first[call] for call in first) and all(told_of(house, tenant, c)[1] for c in of_streams)

    wait_until(all_told, "the leases are not renewed", seconds=LEASE_S)
    with frozen(victim):
        spared = [house.send(tenant, stream=True, sim="tokens_per_s=10 tokens=80") for _ in range(10)]
        runs = len(of_streams) + 10  # a call that hangs takes no seat
        wait_until(lambda: house.vllm.metrics()["num_requests_running"] == runs, "the streams do not begin")
    house.vllm.knobs(max_num_seqs=1)
    with frozen(other):
        queued = [house.send(tenant, stream=number % 2 == 0) for number in range(20)]
        wait_until(lambda: house.vllm.metrics()["num_requests_waiting"] == len(queued), "the calls do not wait")
    return Doomed([answer.id for answer in ended], [*plain, *streams], of_streams, of_plain, queued, spared)


def leases_of(house: House, tenant: str) -> dict[str, float]:
    """When each lease of the tenant's partition ends, in Unix seconds."""
    found: Any = house.store.zrange(leases_key(partition(house.ids[tenant])), 0, -1, withscores=True)
    return {call.decode(): ends_ms / 1000 for call, ends_ms in found}


def told_of(house: House, tenant: str, call: str) -> tuple[int, int]:
    """Prompt and completion tokens of a call as its worker last told them; its bound and 0 before."""
    values: Any = house.store.hmget(f"{base(partition(house.ids[tenant]))}r:{call}", "call", "prompt", "completion")
    return int(values[1] or values[0].split(b" ")[3]), int(values[2] or 0)


def reaped(house: House, tenant: str, held: list[str], killed_s: float) -> float:
    """The moment at which nothing of `held` is held any more: waited for, or brought about by a clock that is ahead."""
    now_s = killed_s + LEASE_S
    if not full():
        Quota(house.store).reap(partition(house.ids[tenant]), now_s=now_s)
    left_s = killed_s + HELD_MOST_S - time.time()
    wait_until(lambda: not leases_of(house, tenant).keys() & set(held), "something is held for too long", seconds=left_s)
    if full():
        now_s = time.time()
        print(f"{len(held)} calls were posted as lost {now_s - killed_s:.1f} s after their worker's death")
    return now_s


# ---- the worker that posts


def test_a_killed_worker_posts_nothing_twice_and_leaves_nothing(house: House) -> None:
    house.kill_worker()
    journaled = backlog(house, "posting")
    with house.database() as holder:  # nothing of the batch is in the ledger
        kill_where_it_waits(house, holder, "usage_usagerecord")
    with house.database() as holder:  # all of it is, but for the last rollup, and nothing is committed
        kill_where_it_waits(house, holder, "usage_dayrollup")
    assert house.posted("posting") == 0
    kill_after_commit(house, "posting")
    for _ in range(8 if full() else 0):
        kill_while_it_posts(house, "posting")
    house.start_worker()
    assert ledger(house, "posting") == journaled
    assert house.handed_out() == 0
    assert_rollups_are_the_ledger(house, "posting")


def backlog(house: House, tenant: str) -> dict[str, tuple[str, int, int]]:
    """Put ended calls of two days, keys, aliases and outcomes on the journal, as a gateway does; returns what is there."""
    dice, quota, now_s = random.Random(7), Quota(house.store), time.time()
    made = [ended_call(house.ids, tenant, dice, now_s) for _ in range(BACKLOG)]
    for event in made:
        quota.settle(None, event, now_s=now_s)
    assert house.on_journal() == BACKLOG
    return {event.request_id: (event.outcome, event.prompt_tokens, event.completion_tokens) for event in made}


def ended_call(ids: dict[str, str], tenant: str, dice: random.Random, now_s: float) -> UsageEvent:
    outcome, status = dice.choice((("completed", 200), ("client_left", 499), ("failed", 502)))
    key = dice.choice(("ci", "full"))
    return UsageEvent(
        request_id=str(uuid7()),
        created_s=round(now_s - dice.random() * 2 * 86400, 3),
        tenant=tenant,
        tenant_id=ids[tenant],
        key_id=ids[f"{tenant}/{key}"],
        key_name=key,
        alias=dice.choice(("general", "secure")),
        deployment="tiny",
        backend="gpu-1",
        status=status,
        outcome=outcome,  # type: ignore[arg-type]
        error_code=None,
        stream=dice.random() < 0.5,
        prompt_tokens=dice.randrange(2000),
        cached_tokens=dice.randrange(100),
        completion_tokens=dice.randrange(500),
        usage_source="backend",
        first_token_ms=dice.randrange(500),
        duration_ms=dice.randrange(60_000),
        attempts=1,
        cost_nano=dice.randrange(10**6),
    )


def kill_where_it_waits(house: House, holder: "psycopg.Connection[Any]", table: str) -> None:
    """Start a worker, and kill it in the transaction in which it wants to write to `table`."""
    wait_for_lock(house, holder, table)
    house.kill_worker()
    assert house.handed_out() > 0


def wait_for_lock(house: House, holder: "psycopg.Connection[Any]", table: str) -> None:
    """Start a worker; returns when it waits for `table`, which `holder` holds until its transaction ends."""
    holder.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE".encode())
    house.start_worker()
    waits = "SELECT 1 FROM pg_locks WHERE relation = %s::regclass AND NOT granted"
    wait_until(lambda: holder.execute(waits, [table]).fetchone(), f"nobody wants to write to {table}")


def kill_after_commit(house: House, tenant: str) -> None:
    """Start a worker, and kill it when a batch of it is committed and not yet taken off the journal."""
    waiting = house.on_journal()
    with ExitStack() as paused:
        with house.database() as holder:
            wait_for_lock(house, holder, "usage_dayrollup")
            paused.enter_context(house.writes_paused())
        wait_until(lambda: house.posted(tenant), "the batch is not committed")
        house.kill_worker()
    assert house.on_journal() == waiting
    assert house.handed_out() >= house.posted(tenant)


def kill_while_it_posts(house: House, tenant: str) -> None:
    """Start a worker, and kill it somewhere in the next batches, wherever it is."""
    before = house.posted(tenant)
    house.start_worker()
    wait_until(lambda: house.posted(tenant) > before or before == BACKLOG, "nothing is posted")
    time.sleep(random.random() * 0.2)  # the moment is to be any
    house.kill_worker()
    print(f"killed with {house.posted(tenant)} posted, {house.handed_out()} in hand, {house.on_journal()} on the journal")


# ---- PostgreSQL


def test_calls_go_on_without_postgresql_and_all_of_them_are_posted_after_it(house: House) -> None:
    tenant = "calling"
    before = tokens_of(house.vllm)
    with load(house, tenant) as answers:
        wait_until(lambda: house.posted(tenant) > 20, "nothing is posted")
        house.postgres.process.kill()
        house.postgres.process.wait()
        killed_at = len(answers) + CLIENTS  # of each, one more may have been settled before
        time.sleep(OUTAGE_S)
        ended = len(answers)
        assert house.on_journal() >= ended - killed_at > 20
        house.start_postgres()
        started = time.monotonic()
        wait_until(lambda: len(answers) > ended + 20, "no call ends any more")
    assert {answer.status for answer in answers} == {200}
    assert all(answer.is_whole for answer in answers)
    calls = ledger(house, tenant)
    print(f"{len(answers)} calls, {ended - killed_at} in the outage; all posted {time.monotonic() - started:.1f} s after it")
    assert calls.keys() == {answer.id for answer in answers}
    assert sum(prompt + completion for _, prompt, completion in calls.values()) == tokens_of(house.vllm) - before
    assert_rollups_are_the_ledger(house, tenant)
    assert_counters_are_the_ledger(house, tenant, now_s=time.time())


@contextmanager
def load(house: House, tenant: str) -> Iterator[list[Answer]]:
    """Clients that call one after the other, until the block ends; what they were answered so far."""
    answers: list[Answer] = []
    is_over = threading.Event()

    def call(number: int) -> None:
        dice = random.Random(number)
        while not is_over.is_set():
            body: dict[str, Any] = {"stream": dice.random() < 0.5, "max_tokens": dice.randrange(1, 60)}
            answers.append(house.call(tenant, sim="first_token_ms=50", **body))

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(call, number) for number in range(CLIENTS)]
        try:
            yield answers
        finally:
            is_over.set()
    for client in clients:
        client.result()


def tokens_of(vllm: Simulator) -> int:
    """All that the backend has taken and generated so far, by its own count."""
    metrics = vllm.metrics()
    return int(metrics["prompt_tokens_total"] + metrics["generation_tokens_total"])


# ---- the journal that nobody posts


def test_a_journal_that_nobody_posts_is_told_of_and_bounded(house: House) -> None:
    house.kill_worker()
    number = next(n for n in range(PARTITIONS) if n not in {partition(house.ids[tenant]) for tenant in TENANTS})
    stream, hour_ago_ms = journal_key(number), int((time.time() - 3600) * 1000)
    house.store.delete(stream)
    fill_journal(house.store, stream, since_ms=hour_ago_ms)
    finding = journal_finding(house)
    assert not finding["is_good"]
    assert finding["detail"].startswith(f"{JOURNAL_MAX} ended calls wait for the ledger, the oldest for 60 min; in 0.0 h")
    house.store.delete(ALARMED)  # it is told once a minute, and was perhaps while the journal filled
    wait_until(lambda: alarms(house, entries=JOURNAL_MAX, full_in_s=0, level="error"), "no alarm")

    last = settle_calls(house.store, number)
    kept: Any = house.store.xrevrange(stream, count=len(last))
    assert [json.loads(fields[b"event"])["request_id"] for _, fields in kept] == last[::-1]
    assert house.store.xlen(stream) <= JOURNAL_MAX + 100  # it is cut by whole nodes, of 100 entries
    assert house.call("calling").is_whole  # calls go on

    house.store.delete(stream)
    house.start_worker()
    wait_until(lambda: journal_finding(house)["is_good"], "the alarm does not end")


_FILL = """
for i = ARGV[1], ARGV[2] do
  redis.call('XADD', KEYS[1], string.format('%.0f-%d', ARGV[3] + i / 100, i), 'event', 'x')
end
"""


def fill_journal(store: redis.Redis, stream: str, *, since_ms: int) -> None:
    """As many entries as it may hold, on the server itself: a hundred a millisecond."""
    for first in range(1, JOURNAL_MAX + 1, 20_000):
        store.eval(_FILL, 1, stream, first, min(first + 19_999, JOURNAL_MAX), since_ms)


def settle_calls(store: redis.Redis, number: int) -> list[str]:
    """End 500 calls of some tenant of this partition; their ids, in the order of their ends."""
    tenant_id = next(made for _ in iter(int, 1) if partition(made := str(uuid7())) == number)
    ids = {"nobody": tenant_id, "nobody/ci": str(uuid7()), "nobody/full": str(uuid7())}
    now_s, dice = time.time(), random.Random(7)
    events = [ended_call(ids, "nobody", dice, now_s) for _ in range(500)]
    assert all(Quota(store).settle(None, event, now_s=now_s) for event in events)
    return [event.request_id for event in events]


def journal_finding(house: House) -> dict[str, Any]:
    """What the doctor says of the journal."""
    findings: list[dict[str, Any]] = json.loads(house.manage("doctor", "--json").stdout)
    return next(finding for finding in findings if finding["name"] == "Journal")


def alarms(house: House, **facts: object) -> list[dict[str, Any]]:
    """What the gateway's log says of it."""
    lines = [json.loads(line) for line in house.gateway.lines() if '"journal_not_posted"' in line]
    return [line for line in lines if facts.items() <= line.items()]
