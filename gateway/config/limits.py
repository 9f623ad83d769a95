"""Limits and prices as people write them. Reads and writes no table.

    limits: {tokens_per_hour: 50000, money_per_month: "12.50", shadow: [tokens_per_hour], clamp: [money_per_month]}
    price:  {prompt: "0.50", cached: "0.05", completion: "1.50"}

shadow: counted, not refused. clamp: an output that does not fit is shortened, not refused. Prices are per million tokens;
without `cached`, cached prompt tokens cost what the others do. The currency is the installation's own.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any, Final

from gateway.config.readers import amount, integer, listed, nullable, text
from gateway.config.source import Place, Refused, known_names, near
from usage.limits import CLAMPABLE, MAX, NAMES, Limit

MONEY: Final = "money_per_month"
MONEY_DECIMALS: Final = 9
PRICES: Final = ("prompt", "cached", "completion")
PRICE_MAX: Final = 999_999
PRICE_DECIMALS: Final = 6
_NANO: Final = Decimal(10**MONEY_DECIMALS)


def limits(place: Place) -> tuple[Limit, ...]:
    """All the limits of one subject, in the order of NAMES."""
    places, problems = place.fields(), len(place.problems)
    given = [name for name in NAMES if name in places]
    maxima = {name: _attempt(partial(_maximum, name=name), places[name]) for name in given}
    shadow = _attempt(listed(partial(_given, given=given)), places.get("shadow")) or []
    clamp = _attempt(listed(partial(_clamp, given=given, shadow=shadow)), places.get("clamp")) or []
    known = (*NAMES, "shadow", "clamp")
    for name, inside in places.items():
        if name not in known:
            inside.refuse("there is no such limit", near(name, known))
    if len(place.problems) > problems:
        raise Refused
    return tuple(Limit(name, maxima[name], "shadow" if name in shadow else "enforce", name in clamp) for name in given)


def price(place: Place) -> dict[str, Decimal | None]:
    """The price of each of PRICES. None: cached tokens cost what the others do."""
    places, problems = place.fields(), len(place.problems)
    for name, inside in places.items():
        if name not in PRICES:
            inside.refuse("unknown field", near(name, PRICES))
    for name in ("prompt", "completion"):
        if name not in places:
            place.refuse(f'"{name}" is missing')
    prices = {name: _attempt(nullable(_price) if name == "cached" else _price, places.get(name)) for name in PRICES}
    if len(place.problems) > problems:
        raise Refused
    return prices


def as_mapping(configured: Iterable[Limit]) -> dict[str, Any]:
    """Limits in the form that limits() reads."""
    held = sorted(configured, key=lambda limit: NAMES.index(limit.name))
    mapping: dict[str, Any] = {limit.name: _written(limit) for limit in held}
    if shadow := [limit.name for limit in held if limit.mode == "shadow"]:
        mapping["shadow"] = shadow
    if clamp := [limit.name for limit in held if limit.clamps]:
        mapping["clamp"] = clamp
    return mapping


def differences(before: Iterable[Limit], after: Iterable[Limit]) -> Iterator[tuple[str, str | None, str | None]]:
    """What changes, as (name, before, after): `50000`, `50000 shadow`, `12.5 clamp`; None where there is no limit."""
    old, new = ({limit.name: limit for limit in side} for side in (before, after))
    for name in NAMES:
        if old.get(name) != new.get(name):
            yield name, _told(old.get(name)), _told(new.get(name))


def plain(value: Decimal) -> str:
    """The shortest spelling, without an exponent: 12.50 as 12.5, 100 as 100."""
    return f"{value.normalize():f}"


def _told(limit: Limit | None) -> str | None:
    if limit is None:
        return None
    return f"{_written(limit)}{' shadow' if limit.mode == 'shadow' else ''}{' clamp' if limit.clamps else ''}"


def _written(limit: Limit) -> int | str:
    return plain(limit.max / _NANO) if limit.name == MONEY else limit.max


def _attempt(reader: Callable[[Place], Any], place: Place | None) -> Any:
    """What `reader` reads; None for what is refused, and for what is not there."""
    try:
        return None if place is None else reader(place)
    except Refused:
        return None


def _maximum(place: Place, *, name: str) -> int:
    """In tokens, calls or nano-units of money."""
    is_money = name == MONEY
    value = int(amount(place, decimals=MONEY_DECIMALS) * _NANO) if is_money else integer(place)
    if value < 1:
        raise place.refuse("must be above 0")
    if value > MAX:
        raise place.refuse(f"must be at most {plain(MAX / _NANO) if is_money else MAX}")
    return value


def _given(place: Place, *, given: Collection[str]) -> str:
    name = text(place)
    if name not in given:
        raise place.refuse(f'there is no limit "{name}" beside this', near(name, given))
    return name


def _clamp(place: Place, *, given: Collection[str], shadow: Collection[str]) -> str:
    name = _given(place, given=given)
    if name not in CLAMPABLE:
        raise place.refuse(f'"{name}" cannot clamp: a shorter output does not spare it', known_names(CLAMPABLE))
    if name in shadow:
        raise place.refuse(f'"{name}" cannot clamp: a shadow limit changes no call')
    return name


def _price(place: Place) -> Decimal:
    value = amount(place, decimals=PRICE_DECIMALS)
    if value > PRICE_MAX:
        raise place.refuse(f"must be at most {PRICE_MAX}")
    return value
