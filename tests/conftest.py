"""The stores all tests run on, and the personas: acme and its people, globex (the stranger), operator."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings
from hypothesis import settings as hypothesis_settings

from accounts import issuing
from accounts.models import ApiKey, Membership, Tenant, User
from accounts.roles import Role
from portal import embedded

# How long an example takes says more of what else the machine does than of the code.
hypothesis_settings.register_profile("sekisho", deadline=None)
hypothesis_settings.load_profile("sekisho")

PASSWORD = "a traveller's permit, please"  # of every persona who signs in
_stores: list[embedded.Store] = []


def pytest_configure(config: pytest.Config) -> None:
    """Start PostgreSQL and Valkey once a run, in the process that starts the others."""
    if hasattr(config, "workerinput") or config.option.collectonly or config.option.help:
        return
    home = Path(os.environ["SEKISHO_HOME"])
    if not os.environ.get("DATABASE_URL"):
        _stores.append(embedded.start_postgres(home, durable=False))
    if not os.environ.get("REDIS_URL"):
        _stores.append(embedded.start_valkey(home, durable=False))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _stores:
        return
    while _stores:
        _stores.pop().stop()
    home = Path(os.environ["SEKISHO_HOME"])
    shutil.rmtree((home / "postgres").resolve(), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def valkey() -> Iterator[redis.Redis]:
    """This worker's own Valkey database, emptied before and after."""
    client = redis.Redis.from_url(settings.REDIS_URL)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def acme(db: None) -> Tenant:
    return Tenant.objects.create(slug="acme", name="Acme")


@pytest.fixture
def globex(db: None) -> Tenant:
    """The stranger: whose things acme's people must never see, and the other way round."""
    return Tenant.objects.create(slug="globex", name="Globex")


@pytest.fixture
def acme_owner(acme: Tenant) -> User:
    return _member(acme, Role.OWNER)


@pytest.fixture
def acme_admin(acme: Tenant) -> User:
    return _member(acme, Role.ADMIN)


@pytest.fixture
def acme_developer(acme: Tenant) -> User:
    return _member(acme, Role.DEVELOPER)


@pytest.fixture
def acme_viewer(acme: Tenant) -> User:
    return _member(acme, Role.VIEWER)


@pytest.fixture
def globex_admin(globex: Tenant) -> User:
    return _member(globex, Role.ADMIN)


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_user("operator@sekisho.example", PASSWORD, is_operator=True)


@pytest.fixture
def acme_key(acme: Tenant) -> tuple[ApiKey, str]:
    """A key of acme with the default scopes, and its text."""
    return issuing.issue(acme, issuing.Terms(name="ci"), actor=None, actor_label="test")


def _member(tenant: Tenant, role: Role) -> User:
    user = User.objects.create_user(f"{role}@{tenant.slug}.example", PASSWORD)
    Membership.objects.create(tenant=tenant, user=user, role=role)
    return user
