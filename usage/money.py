"""Money as people read it. Pure."""

from decimal import Decimal
from typing import Final

NANO: Final = 10**9


def units(nano: int) -> str:
    """Nano-units as units of the currency, in decimal text without exponent: 1_500_000_000 is "1.5"."""
    text = f"{Decimal(nano) / NANO:.9f}".rstrip("0").rstrip(".")
    return text if text != "-0" else "0"
