"""What the gateway's profile adds to the settings, for tests that run gateway code in this process."""

from typing import Any

import pytest

from portal.settings import gateway as profile

_ADDED = [
    name
    for name in dir(profile)
    if name.isupper()
    and name.startswith(("REQUEST_BODY", "CALL_", "CONNECT_", "FIRST_", "KEEP_", "KEY_CACHE", "OPERATOR_", "TRUSTED_"))
]


@pytest.fixture(autouse=True)
def gateway_settings(settings: Any) -> Any:
    for name in _ADDED:
        setattr(settings, name, getattr(profile, name))
    return settings
