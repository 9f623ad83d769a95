"""Who looks at the pages: a client signed in as one of the personas; and a whole installation."""

from collections.abc import Callable, Iterator

import pytest
import redis
from django.conf import settings
from django.test import Client
from django.utils import translation

from accounts.models import User
from portal.identity import lockouts
from tests.portal.installation import Running, checkout


@pytest.fixture
def signed_in(client: Client) -> Callable[[User], Client]:
    def sign_in(user: User) -> Client:
        client.force_login(user)
        return client

    return sign_in


@pytest.fixture(scope="session")
def installation() -> Iterator[Running]:
    """The product as a user starts it, with `deploy/up --json`. For tests of the xdist group `installation`."""
    with (
        checkout() as copy,
        copy.up(copy.folder.parent / "ho me", "--json", "--portal-port", "0", "--api-port", "0") as running,
    ):
        yield running


@pytest.fixture(autouse=True)
def language_ends_with_its_test() -> Iterator[None]:
    """A page leaves its language active for whatever this process does next."""
    yield
    translation.deactivate()


@pytest.fixture(autouse=True)
def nobody_tried_to_sign_in() -> None:
    """Attempts are counted in Redis, which outlives a test."""
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        for key in client.scan_iter("sekisho:portal:*"):
            client.delete(key)
        client.delete(lockouts.KEY)
