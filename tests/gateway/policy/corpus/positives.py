"""Made-up things that detectors, keywords and patterns are to find. Each is new, by the dice that are handed in."""

import base64
import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

from accounts import keys
from gateway.policy import check_digits

WORDS: Final = ("機密コード", "ALPHA-77", "プロジェクト暁", "Nightjar", "社外秘データ", "unreleased roadmap")
PATTERN: Final = "案件[A-Z]{3}-[0-9]{2}"
RULES: Final[Mapping[str, dict[str, Any]]] = {
    "keywords": {"kind": "keywords", "words": list(WORDS)},
    "pattern": {"kind": "pattern", "pattern": PATTERN},
}
_UPPER: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER: Final = _UPPER.lower()
_DIGITS: Final = "0123456789"

# N is 2 to 9, # any digit.
_PHONES: Final = (
    *("+1 N##-N##-####", "+1 (N##) N##-####", "+1N##N######", "+44 20 N### ####", "+4420N#######", "+49 30 N#####"),
    *("+33 1 ## ## ## N#", "+86 139 #### ###N", "+82-10-N###-####", "+353 1 N## ####", "0044 20 N### ####", "00-49-30-N#####"),
)


def some(dice: Random, alphabet: str, count: int) -> str:
    return "".join(dice.choices(alphabet, k=count))


def _digits(dice: Random, form: str) -> str:
    """Each 0 of `form` by a digit, each 9 by one that is not zero."""
    return "".join({"0": dice.choice(_DIGITS), "9": dice.choice(_DIGITS[1:])}.get(char, char) for char in form)


def _closed(body: str, is_right: Callable[[str], bool]) -> str:
    """`body` with the last digit that makes it right."""
    return next(body + digit for digit in _DIGITS if is_right(body + digit))


def _email(dice: Random) -> str:
    name = some(dice, _LOWER, dice.randint(2, 8)) + dice.choice(["", ".", "_", "-", "+"]) + some(dice, _LOWER + _DIGITS, 4)
    return f"{name}@{some(dice, _LOWER, 6)}.{dice.choice(['co.jp', 'com', 'example.org', 'ne.jp', 'dev', 'ac.jp', 'io'])}"


def _jp_phone(dice: Random) -> str:
    between = dice.choice(["-", "-", "-", " ", ".", ""])
    mobile = f"0{dice.choice('56789')}0", _digits(dice, "9000"), _digits(dice, "0000")
    area = dice.choice([("03", "9000"), ("06", "9000"), ("045", "900"), ("075", "900"), ("0467", "90"), ("01267", "9")])
    landline = area[0], _digits(dice, area[1]), _digits(dice, "0000")
    free = dice.choice(
        [("0120", _digits(dice, "900"), _digits(dice, "000")), ("0800", _digits(dice, "900"), _digits(dice, "0000"))]
    )
    groups = dice.choice([mobile, mobile, landline, landline, free])
    abroad = f"+81{between}{groups[0][1:]}{between}{groups[1]}{between}{groups[2]}"
    return dice.choice([between.join(groups)] * 4 + [abroad, f"({groups[0]}) {groups[1]}-{groups[2]}"])


def _phone(dice: Random) -> str:
    form = dice.choice(_PHONES)
    return "".join({"N": dice.choice("23456789"), "#": dice.choice(_DIGITS)}.get(char, char) for char in form)


def _postal_code(dice: Random) -> str:
    return dice.choice([_digits(dice, "900-0000"), "〒" + _digits(dice, "900-0000"), "〒" + _digits(dice, "9000000")])


def _my_number(dice: Random) -> str:
    number = _closed(_digits(dice, "90000000000"), check_digits.is_my_number)
    between = dice.choice(["", "-", " "])
    return between.join((number[:4], number[4:8], number[8:]))


def _card(dice: Random) -> str:
    start, length = dice.choice(
        [("4", 16), ("51", 16), ("2300", 16), ("37", 15), ("3540", 16), ("36", 14), ("6011", 16), ("621", 19)]
    )
    number = _closed(start + some(dice, _DIGITS, length - len(start) - 1), check_digits.is_card)
    between = dice.choice(["", "-", " "])
    ends = {14: (4, 10), 15: (4, 10), 16: (4, 8, 12), 19: (4, 8, 12, 16)}[length]
    return between.join(number[start:end] for start, end in zip((0, *ends), (*ends, length), strict=True))


def _iban(dice: Random) -> str:
    country = dice.choice(["DE", "GB", "FR", "NL", "BE", "CH", "ES", "NO", "PL", "SA"])
    bank = some(dice, _UPPER, 4) if country in {"GB", "NL"} else some(dice, _DIGITS, 4)
    account = bank + some(dice, _DIGITS, check_digits.IBAN_LENGTHS[country] - 8)
    rest = int("".join(str(int(char, 36)) for char in account + country + "00")) % 97
    iban = f"{country}{98 - rest:02}{account}"
    return " ".join(iban[at : at + 4] for at in range(0, len(iban), 4)) if dice.random() < 0.5 else iban


def _ip_address(dice: Random) -> str:
    if dice.random() < 0.6:
        return f"{dice.choice([10, 172, 192, 203, 198])}.{dice.randint(0, 255)}.{dice.randint(0, 255)}.{dice.randint(10, 254)}"
    groups = ["2001", "db8", *(f"{dice.randrange(1, 65536):x}" for _ in range(6))]
    return dice.choice([":".join(groups), ":".join(groups[:4]) + "::" + groups[4], f"fd00:{groups[2]}::{groups[3]}"])


def _secret(dice: Random) -> str:
    base62 = _DIGITS + _UPPER + _LOWER
    header, claims = ({"alg": "HS256", "typ": "JWT"}, {"sub": some(dice, _DIGITS, 10), "iat": 1795273200})
    jwt = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)]
    lines = "\n".join(some(dice, base62 + "+/", 64) for _ in range(dice.randint(3, 48)))
    kind = dice.choice(["RSA ", "EC ", "", "OPENSSH "])
    ours = keys.PREFIX + some(dice, base62, keys.LOOKUP_LENGTH + keys.SECRET_LENGTH)
    return dice.choice(
        [
            "AKIA" + some(dice, _UPPER + "234567", 16),
            "ghp_" + some(dice, base62, 36),
            "glpat-" + some(dice, base62, 20),
            "xoxb-" + some(dice, _DIGITS, 12) + "-" + some(dice, base62, 24),
            "AIza" + some(dice, base62, 35),
            "sk_live_" + some(dice, base62, 24),
            "sk-proj-" + some(dice, base62, 74) + "T3BlbkFJ" + some(dice, base62, 74),
            "sk-ant-api03-" + some(dice, base62 + "-_", 93) + "AA",
            "hf_" + some(dice, base62, 34),
            "npm_" + some(dice, base62, 36),
            ".".join((*jwt, some(dice, base62 + "-_", 43))),
            f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----",
            ours + keys._checksum(ours),
        ]
    )


def _keyword(dice: Random) -> str:
    return dice.choice(WORDS)


def _pattern(dice: Random) -> str:
    return f"案件{some(dice, _UPPER, 3)}-{some(dice, _DIGITS, 2)}"


POSITIVES: Final[Mapping[str, Callable[[Random], str]]] = {
    "keywords": _keyword,
    "pattern": _pattern,
    "email": _email,
    "jp_phone": _jp_phone,
    "phone": _phone,
    "jp_postal_code": _postal_code,
    "my_number": _my_number,
    "credit_card": _card,
    "iban": _iban,
    "ip_address": _ip_address,
    "secret": _secret,
}
