"""Numbers that prove themselves: cards, My Number, IBAN. Pure; all take bare digits (IBAN: and ASCII capitals)."""

from collections.abc import Mapping
from typing import Final

# First digits (from, to) and lengths of numbers, by issuer. The ends of a range have as many digits as each other.
_ISSUERS: Final[tuple[tuple[str, str, frozenset[int]], ...]] = (
    ("300", "305", frozenset({14})),  # Diners Club
    ("34", "34", frozenset({15})),  # American Express
    ("3528", "3589", frozenset({16})),  # JCB
    ("36", "36", frozenset({14})),  # Diners Club
    ("37", "37", frozenset({15})),  # American Express
    ("38", "39", frozenset({14})),  # Diners Club
    ("4", "4", frozenset({16, 19})),  # Visa. Not 13: none are left, and every tenth Japanese bar code (45, 49) would be one
    ("51", "55", frozenset({16})),  # Mastercard
    ("2221", "2720", frozenset({16})),  # Mastercard
    ("6011", "6011", frozenset({16})),  # Discover
    ("644", "659", frozenset({16})),  # Discover
    ("62", "62", frozenset({16, 17, 18, 19})),  # UnionPay
)
# The SWIFT registry of IBAN formats, by country.
IBAN_LENGTHS: Final[Mapping[str, int]] = {
    country: int(length)
    for length, countries in {
        "15": "NO",
        "16": "BE",
        "18": "DK FI FK FO GL NL SD",
        "19": "MK SI",
        "20": "AT BA EE KZ LT LU MN XK",
        "21": "CH HR LI LV",
        "22": "BG BH CR DE GB GE IE ME RS VA",
        "23": "AE GI IL IQ OM TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG",
        "25": "LY PT ST",
        "26": "IS TR",
        "27": "BI DJ FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HN HU LB NI PL SV",
        "29": "BR EG PS QA UA",
        "30": "JO KW MU YE",
        "31": "MT SC",
        "32": "LC",
        "33": "RU",
    }.items()
    for country in countries.split()
}


def is_card(digits: str) -> bool:
    """Has it an issuer's first digits, that issuer's length and a right Luhn digit?"""
    issued = any(low <= digits[: len(low)] <= high and len(digits) in lengths for low, high, lengths in _ISSUERS)
    return issued and luhn_sum(digits) % 10 == 0


def luhn_sum(digits: str) -> int:
    """ISO/IEC 7812-1: every second digit from the right counts double, by the sum of its own digits."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return sum(doubled) + sum(map(int, digits[::-2]))


def is_my_number(digits: str) -> bool:
    """Are these 12 digits an individual number (マイナンバー)? Twelve zeros have a right check digit, and are none."""
    return len(digits) == 12 and digits != "0" * 12 and int(digits[-1]) == my_number_check_digit(digits[:-1])


def my_number_check_digit(digits: str) -> int:
    """平成26年総務省令第85号 第5条. digits: the 11 others; the n-th from the right weighs n + 1, from the seventh n - 5."""
    total = sum(int(digit) * (n + 1 if n <= 6 else n - 5) for n, digit in enumerate(reversed(digits), start=1))
    rest = total % 11
    return 0 if rest <= 1 else 11 - rest


def is_iban(text: str) -> bool:
    """ISO 13616: its country's length, and 1 modulo 97 with the first four characters behind, letters as 10 to 35."""
    if len(text) != IBAN_LENGTHS.get(text[:2]):
        return False
    return int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1
