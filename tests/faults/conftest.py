"""Three backends and a gateway for all rows, configured anew for each."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis

from accounts import issuing
from accounts.models import Tenant
from gateway.models import Deployment, ModelAlias
from tests import processes
from tests.e2e.conftest import BY, Stand, await_configuration, publish
from tests.faults.field import Field, Machine
from tests.faults.matrix import Printed
from tests.faults.names import Names, names


@pytest.fixture(scope="session")
def machines() -> Iterator[list[Machine]]:
    running = [Machine() for _ in range(3)]
    yield running
    for machine in running:
        machine.end()


@pytest.fixture(scope="package")
def name_server() -> Iterator[Names]:
    with names() as server:
        yield server


@pytest.fixture(scope="package")
def faulty_gateway(tmp_path_factory: pytest.TempPathFactory, name_server: Names) -> Iterator[processes.Gateway]:
    """Any of its workers may be the one that probes a backend, so all of them ask the name server."""
    resolver = {
        "GEVENT_RESOLVER": "ares",
        "GEVENTARES_SERVERS": "127.0.0.1",
        "GEVENTARES_UDP_PORT": str(name_server.port),
    }
    with processes.gateway(tmp_path_factory.mktemp("faults"), workers=2, **resolver) as running:
        yield running


@pytest.fixture
def is_long(pytestconfig: pytest.Config) -> bool:
    return any(isinstance(plugin, Printed) for plugin in pytestconfig.pluginmanager.get_plugins())


@pytest.fixture
def stand(transactional_db: None, valkey: redis.Redis, machines: list[Machine], faulty_gateway: processes.Gateway) -> Stand:
    """As the e2e tests have it; which deployment stands behind the alias is each row's own."""
    acme = Tenant.objects.create(slug="acme", name="Acme")
    deployment = Deployment.objects.create(name="none", served_model="tiny")
    ModelAlias.objects.create(tenant=acme, name="general", deployment=deployment)
    key, secret = issuing.issue(acme, issuing.Terms(name="ci"), **BY)
    publish()
    ready = Stand(faulty_gateway, machines[0].sim, acme, key, secret, valkey, deployment)
    await_configuration(ready)
    return ready


@pytest.fixture
def field(stand: Stand, machines: list[Machine], is_long: bool) -> Field:
    return Field(stand, machines, is_long=is_long)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened
