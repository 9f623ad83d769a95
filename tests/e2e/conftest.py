"""A whole gateway for tests: simulated vLLM, rows published through the real street, real gunicorn."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
import requests
from django.conf import settings

from accounts import audit, issuing
from accounts.models import ApiKey, Tenant
from gateway.models import Backend, Deployment, ModelAlias, PoolMember
from tests import processes
from tests.simulator import Simulator, simulator
from usage.events import UsageEvent
from usage.partitions import journal_key, partition

BY = audit.By(actor=None, actor_label="tests")
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="session")
def vllm() -> Iterator[Simulator]:
    """One simulated vLLM that serves `tiny`; its knobs go back to their defaults before each test."""
    with simulator() as running:
        yield running


# A mark for what must be the same whichever of its two loops the gateway serves a connection in.
on_both_loops = pytest.mark.parametrize("loop", ["true", "false"], indirect=True, ids=["fast loop", "stock loop"])


@pytest.fixture(scope="package")
def loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of the gateways that are started meanwhile. Without the mark it is that of the environment."""
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(request, "param"):
            patch.setenv("SEKISHO_FAST_HTTP", request.param)
        yield


@pytest.fixture(scope="package")
def gateway_process(tmp_path_factory: pytest.TempPathFactory, loop: None) -> Iterator[processes.Gateway]:
    """It ends with these tests: it writes into the Valkey database of this test process, which others count the keys of."""
    with processes.gateway(tmp_path_factory.mktemp("gateway"), workers=2) as running:
        yield running


@dataclass
class Stand:
    """The gateway with one tenant, `acme`, its alias `general` and a key for all of it."""

    gateway: processes.Gateway
    vllm: Simulator
    acme: Tenant
    key: ApiKey
    secret: str
    store: redis.Redis
    deployment: Deployment
    more: dict[str, Any] = field(default_factory=dict)

    def issue(self, tenant: Tenant | None = None, *, name: str, **terms: Any) -> tuple[ApiKey, str]:
        return issuing.issue(tenant or self.acme, issuing.Terms(name=name, **terms), **BY)

    def post(self, body: dict[str, Any] | None = None, *, secret: str | None = None, **options: Any) -> requests.Response:
        """POST a chat completion; `body` is added to a minimal one."""
        whole = {"model": "general", "messages": [{"role": "user", "content": "Hello"}]} | (body or {})
        headers = {"Authorization": f"Bearer {secret or self.secret}"} | options.pop("headers", {})
        return requests.post(self.gateway.url + CHAT, json=whole, headers=headers, timeout=60, **options)

    def get(self, path: str, *, secret: str | None = None, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {secret or self.secret}"} | options.pop("headers", {})
        return requests.get(self.gateway.url + path, headers=headers, timeout=60, **options)

    def until(self, check: Callable[[], bool], what: str, seconds: float = 20) -> None:
        processes.wait_until(check, what, seconds=seconds)

    def event(self, request_id: str) -> UsageEvent:
        """The usage event of a call, once it is on the journal. Fails when there are two."""
        self.until(lambda: bool(self._events(request_id)), f"no usage event of {request_id}")
        (event,) = self._events(request_id)
        return event

    def running(self) -> int:
        """Calls that the simulated vLLM is generating for, or holds in its queue."""
        metrics = self.vllm.metrics()
        return int(metrics["num_requests_running"] + metrics["num_requests_waiting"])

    def events_of_acme(self) -> list[UsageEvent]:
        """All usage events so far, in the order of their ends."""
        entries = self.store.xrange(journal_key(partition(str(self.acme.id))))
        return [UsageEvent.from_dict(orjson.loads(fields[b"event"])) for _id, fields in entries]

    def _events(self, request_id: str) -> list[UsageEvent]:
        return [event for event in self.events_of_acme() if event.request_id == request_id]


@pytest.fixture
def stand(transactional_db: None, valkey: redis.Redis, vllm: Simulator, gateway_process: processes.Gateway) -> Stand:
    vllm.reset()
    # A real vLLM that serves `tiny`, where one runs: the clients' tests are the same. Knobs it has none.
    backend = Backend.objects.create(name="gpu-1", url=os.environ.get("SEKISHO_TEST_VLLM_URL") or vllm.url)
    deployment = Deployment.objects.create(name="tiny", served_model="tiny", max_model_len=8192)
    PoolMember.objects.create(deployment=deployment, backend=backend)
    acme = Tenant.objects.create(slug="acme", name="Acme")
    ModelAlias.objects.create(
        tenant=acme,
        name="general",
        deployment=deployment,
        display_name={"en": "General", "ja": "汎用"},
        description={"en": "For everything", "ja": "汎用的な業務向けアシスタント。"},
    )
    key, secret = issuing.issue(acme, issuing.Terms(name="ci"), **BY)
    publish()
    ready = Stand(gateway_process, vllm, acme, key, secret, valkey, deployment)
    await_configuration(ready)
    return ready


def publish() -> None:
    """As the beat does every two seconds: here the flushed store of a fresh test is filled."""
    from gateway.tasks import publish_configuration, restore_counters

    publish_configuration()
    restore_counters()


def await_configuration(stand: Stand) -> None:
    """Every worker has seen the new configuration."""
    for _ in stand.gateway.each_worker():
        stand.until(lambda: stand.get("/v1/models").status_code == 200, "the configuration did not arrive")


@pytest.fixture
def fresh_gateway(tmp_path: Path, loop: None) -> Iterator[Callable[..., processes.Gateway]]:
    """Start further gateways with other settings; they end with the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(processes.gateway(tmp_path / f"gateway-{datetime.now():%f}", **options))  # noqa: DTZ005


@pytest.fixture
def redis_url() -> str:
    return settings.REDIS_URL
