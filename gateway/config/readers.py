"""Single values of the configuration file: each reader takes a place, and returns its value or raises Refused.

What is wrong is on file by then. Which fields there are: file_format.py.
"""

import json
import math
import re
from collections.abc import Callable, Collection
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from gateway.config.source import Place, Refused, known_names

Reader = Callable[[Place], Any]


def text(place: Place) -> str:
    value = place.value()
    if not isinstance(value, str):
        raise place.refuse("must be text", "write it in quotes")
    return value


def integer(place: Place) -> int:
    value = place.value()
    if not isinstance(value, int) or isinstance(value, bool):
        raise place.refuse("must be a whole number")
    return value


def seconds(place: Place) -> float:
    value = place.value()
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise place.refuse("must be a number of seconds, such as 2.5")
    return float(value)


def amount(place: Place, *, decimals: int) -> Decimal:
    """Money, exactly as written: 0.10 is a tenth, in quotes or without. decimals: the most digits after the point."""
    match = re.fullmatch(r"[0-9]{1,12}(?:\.([0-9]+))?", place.scalar())
    if match is None:
        raise place.refuse('must be an amount, such as "12.50"')
    if len(match[1] or "") > decimals:
        raise place.refuse(f"must have {decimals} digits after the point at most")
    return Decimal(match[0])


def boolean(place: Place) -> bool:
    value = place.value()
    if not isinstance(value, bool):
        raise place.refuse("must be true or false")
    return value


def moment(place: Place) -> datetime:
    value = place.value()
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is None:
        hint = "" if not isinstance(value, date) else "a time and a time zone are needed"
        raise place.refuse("must be a moment, such as 2027-01-31T00:00:00Z", hint)
    return value


def mapping(place: Place) -> dict[str, Any]:
    """As it comes back from the database's JSON, so that it can be compared with what is there."""
    place.fields()
    try:
        value: dict[str, Any] = json.loads(json.dumps(place.value(), allow_nan=False))
    except (TypeError, ValueError):
        raise place.refuse("must hold what JSON can hold", "write dates in quotes") from None
    return value


def secret(place: Place) -> str:
    """A secret as HTTP carries it. What is wrong is told without it."""
    value = place.value()
    if not isinstance(value, str) or re.fullmatch(r"[\x21-\x7e]{1,4096}", value, re.ASCII) is None:
        raise place.refuse("must be text of visible ASCII characters, without spaces")
    return value


def variable(place: Place) -> str:
    name = text(place)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) is None:
        raise place.refuse("must be the name of an environment variable, not its value")
    return name


def email(place: Place) -> str:
    return checked(validate_email)(place).lower()


def checked(validator: Callable[[str], None]) -> Callable[[Place], str]:
    """Text that a model's validator accepts; here already, so that the problem names the item of a list."""

    def reader(place: Place) -> str:
        value = text(place)
        try:
            validator(value)
        except ValidationError as error:
            raise place.refuse(" ".join(error.messages)) from None
        return value

    return reader


def one_of(choices: Collection[str]) -> Callable[[Place], str]:
    def reader(place: Place) -> str:
        value = text(place)
        if value not in choices:
            raise place.refuse(f'there is no "{value}"', known_names(choices))
        return value

    return reader


def nullable(reader: Reader) -> Reader:
    return lambda place: None if place.value() is None else reader(place)


def listed(reader: Reader) -> Callable[[Place], list[Any]]:
    """A list of different values."""

    def list_reader(place: Place) -> list[Any]:
        values: list[Any] = []
        are_good = True
        for item in place.items():
            try:
                value = reader(item)
                if value in values:
                    raise item.refuse(f'"{value}" is here twice')
                values.append(value)
            except Refused:
                are_good = False
        if not are_good:
            raise Refused
        return values

    return list_reader
