"""How the portal knows that it is the gateway who asks: an HMAC over the moment and the body of the request.

Its key is made from SECRET_KEY, which both processes have. Good for some seconds, so that one overheard is soon worthless.
"""

import hmac
import re
from typing import Final

from django.utils.crypto import salted_hmac

HEADER: Final = "x-sekisho-signature"
LIFETIME_S: Final = 30.0  # either way: the clocks of two machines may differ a little
_FORM: Final = re.compile(r"([0-9]{1,12}):([0-9a-f]{64})", re.ASCII)


def sign(body: bytes, *, now_s: float) -> str:
    """The header's text. now_s: Unix seconds."""
    moment = str(int(now_s))
    return f"{moment}:{_mac(moment, body)}"


def is_signed(body: bytes, signature: str, *, now_s: float) -> bool:
    """Was `body` signed, as it is, within the last seconds?"""
    match = _FORM.fullmatch(signature)
    if match is None or abs(now_s - int(match[1])) > LIFETIME_S:
        return False
    return hmac.compare_digest(_mac(match[1], body), match[2])


def _mac(moment: str, body: bytes) -> str:
    return salted_hmac("sekisho.internal", moment.encode() + b":" + body, algorithm="sha256").hexdigest()
