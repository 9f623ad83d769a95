"""How telephone numbers are written: Japanese ones, and international ones. Pure.

In Japan area code and local exchange have six digits together, with the 0, before the subscriber's four.
"""

import re
from typing import Final

from gateway.policy.normalize import folded
from gateway.policy.shapes import Shape

# Between groups: one dash (a long vowel mark is often meant as one), dot or space, and a line may break behind a dash.
_BETWEEN: Final = r"(?: ?[-ー.] ?\n?| |\) ?| ?\()"
# Area codes of five digits, without the 0: these only, for 0 and four digits begin many part numbers.
_AREAS_OF_FIVE: Final = (
    "1267|137[247]|139[278]|145[67]|1466|1547|1558|1564|158[67]|163[245]|1648|165[4-8]|499[2468]|5769|5979|7468|"
    "838[78]|8396|8477|851[24]|980[2-9]|991[23]|9969"
)
# Area (without its 0), local exchange, subscriber; which are written with and which also without dashes.
_DASHED: Final = (
    ("[346]", "[0-9]{4}", "[0-9]{4}"),
    ("[1-9][1-9]", "[0-9]{3}", "[0-9]{4}"),
    ("[1-9][1-9][0-9]", "[0-9]{2}", "[0-9]{4}"),
    (f"(?:{_AREAS_OF_FIVE})", "[0-9]", "[0-9]{4}"),
    ("(?:120|570)", "[0-9]{3}", "[0-9]{3}"),
    ("(?:120|570)", "[0-9]{2}", "[0-9]{4}"),
    ("800", "[0-9]{3}", "[0-9]{4}"),
)
_MOBILE: Final = "[5-9]0"
_MOBILE_REST: Final = f"{_BETWEEN}?[0-9]{{4}}{_BETWEEN}?[0-9]{{4}}"
_BARE: Final = "(?:[1-9][1-9][0-9]{7}|[346][0-9]{8}|(?:120|570)[0-9]{6}|800[0-9]{7})"


def _japanese(lead: str) -> str:
    """All the numbers behind `lead`: a 0, or +81 in place of it."""
    dashed = [f"{lead}{area}{_BETWEEN}{local}{_BETWEEN}{subscriber}" for area, local, subscriber in _DASHED]
    return "|".join([*dashed, f"{lead}{_MOBILE}{_MOBILE_REST}", lead + _BARE])


# "(03) 1234-5678": the parenthesis is part of it only where it is closed inside.
_IN_PARENTHESES: Final = "|".join(
    rf"\(0{area}\) ?{rest}"
    for area, rest in [(_MOBILE, _MOBILE_REST), *((area, f"{local}{_BETWEEN}{last}") for area, local, last in _DASHED)]
)
_FROM_ABROAD: Final = rf"\B\+81{_BETWEEN}?(?:\(0\) ?|0)?"
# A digit and a dot before ten digits: decimals.
_DECIMALS: Final = r"[0-9]\.0[1-9][0-9]{8,9}"
_ONE_BY_ONE: Final = r"0[ .-][5-9][ .-]0(?:[ .-][0-9]){8}"

_FIRST_DIGITS: Final = re.compile(
    "1|7|2(?:0|7|[1234569][0-9])|3(?:[0123469]|[578][0-9])|4(?:[013456789]|2[0-9])|5(?:[1-8]|[09][0-9])|6(?:[0-6]|[789][0-9])"
    "|8(?:[1246]|[058][0-9])|9(?:[0-58]|[679][0-9])"
)
_NORTH_AMERICAN: Final = re.compile("1[2-9][0-9]{2}[2-9][0-9]{6}")


def _is_japanese(text: str) -> bool:
    plain = folded(text)
    return "0123456789" not in plain and re.match(r"[0-9]\.0[1-9][0-9]{8}", plain) is None


def _is_international(text: str) -> bool:
    """E.164: a country's first digits, 8 to 15 in all. Round sums of money are none."""
    digits = re.sub("[^0-9]", "", folded(text)).removeprefix("00")
    if not 8 <= len(digits) <= 15 or len(digits.rstrip("0")) <= 3 or _FIRST_DIGITS.match(digits) is None:
        return False
    return not digits.startswith("1") or _NORTH_AMERICAN.fullmatch(digits) is not None


JP_PHONE: Final = (
    Shape(rf"{_IN_PARENTHESES}|\b(?:{_japanese('0')}|{_DECIMALS}|{_ONE_BY_ONE})\b", _is_japanese),
    Shape(rf"(?:{_japanese(_FROM_ABROAD)})\b"),
)
PHONE: Final = (
    Shape(
        rf"\B\+[1-9](?:[0-9]{{7,14}}|[0-9]{{0,3}}{_BETWEEN}(?:\(0\) ?)?[0-9]{{1,5}}(?:{_BETWEEN}?[0-9]{{2,5}}){{1,4}})\b",
        _is_international,
    ),
    # With 00 only where dashes or spaces group it: numbers are filled up with zeros everywhere.
    Shape(rf"\b00{_BETWEEN}?[1-9][0-9]{{0,2}}{_BETWEEN}[0-9]{{1,5}}(?:{_BETWEEN}?[0-9]{{2,5}}){{1,4}}\b", _is_international),
)
