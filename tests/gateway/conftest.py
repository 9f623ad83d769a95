"""Gateway code in this process: the settings are the same in every profile."""

from typing import Any

import pytest


@pytest.fixture
def gateway_settings(settings: Any) -> Any:
    """The settings, changed for one test."""
    return settings
