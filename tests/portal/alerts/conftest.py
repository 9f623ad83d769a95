"""A tenant with a limit and calls that use it, and a receiver of webhooks on a real socket."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import redis

from accounts.models import Tenant
from gateway.models import Limit
from portal.alerts import defaults
from portal.alerts.models import AlertRule
from usage import limits
from usage.partitions import alive_key, partition
from usage.quota import Quota
from usage.reservation import Counter

LOOPBACK = ["127.0.0.0/8"]


@dataclass
class Got:
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """status: what it answers with. delay_s: before that."""

    url: str = ""
    status: int = 204
    answer: bytes = b""
    delay_s: float = 0.0
    more: dict[str, str] = field(default_factory=dict)
    got: list[Got] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            state.got.append(Got(dict(self.headers.items()), body))
            time.sleep(state.delay_s)
            self.send_response(state.status)
            for name, value in state.more.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(state.answer)))
            self.end_headers()
            self.wfile.write(state.answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def platform_rules(db: None) -> None:
    """As migrated: where a test before had real transactions, its flush took them."""
    if not AlertRule.objects.filter(tenant=None).exists():
        AlertRule.objects.bulk_create(defaults.rules(None))


@pytest.fixture
def reachable(settings: Any) -> None:
    """The receiver's address is allowed."""
    settings.WEBHOOK_NETWORKS = LOOPBACK
    settings.WEBHOOK_HTTP = True


@pytest.fixture
def daily(acme: Tenant) -> Limit:
    """1,000 tokens a day for all of acme."""
    Limit.replace_all(acme, [limits.Limit("tokens_per_day", 1000)])
    return acme.limits.get()


@pytest.fixture
def use(valkey: redis.Redis, acme: Tenant) -> Callable[..., None]:
    """Let a counter of acme's stand at so much."""

    def set_to(used: int, *, name: str = "tokens_per_day", at_s: float | None = None) -> None:
        now_s, number = time.time(), partition(str(acme.pk))
        quota = Quota(valkey)
        counter = Counter("tenant", str(acme.pk), name, used, at_s or now_s)
        valkey.delete(alive_key(number))  # a living counter would be left alone
        quota.restore(str(acme.pk), [counter], time_zone=acme.time_zone, now_s=now_s)
        quota.mark_alive(number, journal_end=quota.journal_end(number), now_s=now_s)

    return set_to


@pytest.fixture
def limit_rule(acme: Tenant) -> AlertRule:
    return acme.alert_rules.get(kind="limit")
