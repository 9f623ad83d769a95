"""The detectors: things that are known by their form, and by their check digits where they have such. Pure.

What is decided here, where a form means several things:
- An address of e-mail is not `git@host:` and not a file like `icon@2x.png`.
- A dotted quad is an IP address, unless all its numbers have one digit (a version, a section), there are five, it is this
  very machine (127.x, 0.x) or a netmask. Versions with bigger numbers cannot be told from addresses.
- An IPv6 address lies in 2000::/3, fc00::/7, fe80::/10 or ff00::/8, where all there are lie: `ace::bad` is C++.
- Seven digits with a dash after the third are a postal code, unless more digits or a counting word (円, 個, 人 ...) follow.
- Twelve digits that read as a time to the minute (202611211530) are no My Number, nor is a part of a card number.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from gateway.policy.check_digits import IBAN_LENGTHS, is_card, is_iban, is_my_number
from gateway.policy.normalize import folded
from gateway.policy.phone_shapes import JP_PHONE, PHONE
from gateway.policy.secret_shapes import SECRET
from gateway.policy.shapes import Detection, Shape

__all__ = ["DETECTORS", "Detection", "Shape"]

# The local part is one class throughout: with a word boundary, or another first character, each set of places where it may
# have begun would be a state of its own, and there are 2 ** 64.
_DOT: Final = r"(?:\.| ?[(\[]dot[)\]] ?)"
_TOP: Final = "(?:[a-z]{2,}|xn--[a-z0-9-]{2,})"
# Not counted: an automaton that counts what may begin anywhere took 30 ms for 4 KB that it had not seen before.
_EMAIL: Final = rf"[a-z0-9._%+-]+(?:@| ?[(\[]at[)\]] ?)(?:[a-z0-9-]+{_DOT})+{_TOP}"
_NO_EMAIL: Final = re.compile(
    r"git@|.*@[1-9]x\.|.*\.(?:png|jpe?g|gif|svg|webp|avif|bmp|ico|pdf|css|json|xml|html|class)\Z", re.DOTALL
)

_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_NO_IPV4: Final = re.compile(
    r"(?:0|127)\..*|255\.(?:0|128|192|224|24[08]|25[245])\..*|[0-9]\.[0-9]\.[0-9]\.[0-9]|.*\..*\..*\..*\..*"
)
_HEXTET: Final = "[0-9a-f]{1,4}"
_IPV6_END: Final = f"(?::{_HEXTET}){{7}}\\b|(?::{_HEXTET}){{0,6}}::(?:{_HEXTET}(?::{_HEXTET}){{0,5}}\\b)?"
_IPV6: Final = rf"\b(?:[23][0-9a-f]{{3}}|f[cdef][0-9a-f]{{2}})(?:{_IPV6_END})"

_TIME: Final = re.compile("(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[01][0-9]|2[0-3])[0-5][0-9]")
_DASH: Final = "[-ー]"
_GAP: Final = r"(?:[-ー ]\n?|\n)"
_GROUP_IN_LINE: Final = r"[-ー ]\n?[0-9]{4}"
_GAPS: Final = r"[-. ]?\n?"
_UNIT: Final = r" ?(?:[円個件名人年台枚本点冊%$]|(?:yen|kg|mm|km)\b)"


def _digits(text: str) -> str:
    return re.sub("[^0-9]", "", folded(text))


def _is_email(text: str) -> bool:
    return _NO_EMAIL.match(folded(text)) is None


def _is_postal_code(text: str) -> bool:
    """What its pattern took in around the seven digits shows that it is something else."""
    code = folded(text)
    return code[0] in "〒郵" or (re.fullmatch(f"[0-9]{{3}}{_DASH}[0-9]{{4}}", code) is not None and not code.startswith("000"))


def _is_my_number(text: str) -> bool:
    plain = folded(text)
    return not (_TIME.fullmatch(plain) or "." in plain) and is_my_number(_digits(text))


def _is_card(text: str) -> bool:
    return is_card(_digits(text))


def _is_iban(text: str) -> bool:
    return is_iban(re.sub("[^0-9a-z]", "", folded(text)).upper())


def _is_ipv4(text: str) -> bool:
    return _NO_IPV4.fullmatch(folded(text)) is None


def _is_ipv6(text: str) -> bool:
    address = folded(text)
    if sum(bool(group) for group in address.split(":")) < 2 or not any(map(str.isdigit, address)):
        return False
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _iban() -> str:
    """As many as the country has, however they are grouped; words behind it must not count."""
    forms = []
    for length in sorted(set(IBAN_LENGTHS.values())):
        countries = "|".join(_GAPS.join(country.lower()) for country, its in IBAN_LENGTHS.items() if its == length)
        forms.append(f"(?:{countries}){_GAPS}[0-9]{_GAPS}[0-9](?:{_GAPS}[a-z0-9]){{{length - 4}}}")
    return rf"\b(?:{'|'.join(forms)})\b"


DETECTORS: Final[Mapping[str, Detection]] = {
    "email": Detection("EMAIL", (Shape(_EMAIL, _is_email),)),
    "jp_phone": Detection("PHONE", JP_PHONE),
    "phone": Detection("PHONE", PHONE),
    "jp_postal_code": Detection(
        "POSTAL_CODE",
        (
            Shape(rf"(?:〒|郵便番号) ?[:は]? ?[0-9]{{3}} ?{_DASH}? ?[0-9]{{4}}\b", _is_postal_code),
            # Of a longer number it takes in the neighbour, and of an amount its unit, so as to refuse both.
            Shape(
                rf"(?:[0-9][-ー.)])?\b[0-9]{{3}}{_DASH}[0-9]{{4}}\b(?:{_DASH}[0-9a-z]|{_UNIT})?",
                _is_postal_code,
            ),
        ),
    ),
    "my_number": Detection(
        "MY_NUMBER",
        (
            Shape(r"(?:[0-9]\.)?\b[0-9]{12}\b", _is_my_number),
            # A fourth group of four is taken in: a card number's first twelve digits pass one time in eleven.
            Shape(rf"\b[0-9]{{4}}{_GROUP_IN_LINE}{_GROUP_IN_LINE}\b(?:{_GROUP_IN_LINE}\b)?", _is_my_number),
        ),
    ),
    "credit_card": Detection(
        "CREDIT_CARD",
        (
            Shape(r"\b[2-6][0-9]{13,18}\b", _is_card),
            Shape(
                rf"\b[2-6][0-9]{{3}}{_GAP}(?:[0-9]{{4}}{_GAP}[0-9]{{4}}{_GAP}[0-9]{{4}}|[0-9]{{6}}{_GAP}[0-9]{{4,5}})\b",
                _is_card,
            ),
            Shape(rf"\b[46][0-9]{{3}}(?:{_GAP}[0-9]{{4}}){{3}}{_GAP}[0-9]{{1,3}}\b", _is_card),
            Shape(r"\b[2-6](?:[ .-][0-9]){13,15}\b", _is_card),
        ),
    ),
    "iban": Detection("IBAN", (Shape(_iban(), _is_iban),)),
    "ip_address": Detection(
        "IP_ADDRESS",
        (Shape(rf"\b{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}\b(?:\.[0-9])?", _is_ipv4), Shape(_IPV6, _is_ipv6)),
    ),
    "secret": Detection("SECRET", SECRET),
}
