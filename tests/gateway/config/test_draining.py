"""The switch that takes a backend out of service: audited, published, told only where it changes something."""

from collections.abc import Callable

import pytest
import redis

from accounts.audit import By
from accounts.models import AuditEvent
from gateway.config import draining, encryption
from gateway.config.directory import Directory
from gateway.config.documents import PLATFORM, load_platform
from gateway.models import Backend, Deployment
from tests.gateway.config.conftest import eventually

pytestmark = pytest.mark.django_db(transaction=True)
BY: By = {"actor": None, "actor_label": "test"}


def test_drain_and_resume_are_audited_once_each(store: redis.Redis, tiny: Deployment) -> None:
    backend = Backend.objects.get()
    assert not draining.resume(backend, **BY)
    assert draining.drain(backend, **BY)
    assert not draining.drain(Backend.objects.get(), **BY)
    assert Backend.objects.get().is_draining
    assert draining.resume(backend, **BY)
    assert not Backend.objects.get().is_draining
    events = [(event.verb, event.target, event.before, event.after) for event in AuditEvent.objects.order_by("sequence")]
    assert events == [
        ("backend.drained", "backend gpu-1", {"draining": False}, {"draining": True}),
        ("backend.resumed", "backend gpu-1", {"draining": True}, {"draining": False}),
    ]


def test_switch_overwrites_nothing_else(store: redis.Redis, tiny: Deployment) -> None:
    stale = Backend.objects.get()
    Backend.objects.update(url="http://127.0.0.1:9009")
    draining.drain(stale, **BY)
    assert Backend.objects.get().url == "http://127.0.0.1:9009"


def test_workers_are_told(store: redis.Redis, watched: Callable[..., Directory], tiny: Deployment) -> None:
    directory = watched()
    backend = Backend.objects.get()
    draining.drain(backend, **BY)
    eventually(lambda: directory.platform().deployments["tiny"].members[0].backend.is_draining)
    assert draining.is_published()
    draining.resume(backend, **BY)
    eventually(lambda: not directory.platform().backends["gpu-1"].is_draining)


def test_switch_waits_for_a_redis_that_is_out(store: redis.Redis, tiny: Deployment, settings: object) -> None:
    url, settings.REDIS_URL = settings.REDIS_URL, "unix:///nowhere/valkey.sock"  # type: ignore[attr-defined]
    draining.drain(Backend.objects.get(), **BY)
    assert not draining.is_published()
    settings.REDIS_URL = url  # type: ignore[attr-defined]
    draining.resume(Backend.objects.get(), **BY)
    assert draining.is_published()
    assert not load_platform(store.get(PLATFORM), encryption.decrypt).backends["gpu-1"].is_draining
