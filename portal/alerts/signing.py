"""The signature of a webhook's body, and the programs by which whoever gets it checks that. Pure.

X-Sekisho-Signature: t=<Unix seconds>,v1=<hex HMAC-SHA-256 of "t.body">[,v1=<the same under the secret before>]
"""

import hmac
import secrets
from collections.abc import Iterable
from typing import Final

HEADER: Final = "X-Sekisho-Signature"
DELIVERY: Final = "X-Sekisho-Delivery"
ATTEMPT: Final = "X-Sekisho-Attempt"
TOLERANCE_S: Final = 300
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - no secret: what all of them begin with
SECRET_BYTES: Final = 32


def new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def sign(body: bytes, keys: Iterable[str], *, now_s: float) -> str:
    """The header, for every secret in force."""
    moment = str(int(now_s))
    return ",".join([f"t={moment}", *(f"v1={_digest(moment, body, key)}" for key in keys)])


def is_signed(body: bytes, header: str, key: str, *, now_s: float) -> bool:
    parts = [part.partition("=")[::2] for part in header.split(",")]
    moment = next((value for name, value in parts if name == "t"), "")
    if not (moment.isascii() and moment.isdigit()) or abs(now_s - int(moment)) > TOLERANCE_S:
        return False
    wanted = _digest(moment, body, key)
    return any(hmac.compare_digest(wanted.encode(), value.encode()) for name, value in parts if name == "v1")


def _digest(moment: str, body: bytes, key: str) -> str:
    return hmac.new(key.encode(), moment.encode() + b"." + body, "sha256").hexdigest()


PYTHON: Final = '''\
import hashlib, hmac, time


def is_genuine(body: bytes, header: str, secret: str) -> bool:
    """body: the bytes as they came. header: X-Sekisho-Signature."""
    parts = [part.partition("=")[::2] for part in header.split(",")]
    moment = dict(parts).get("t", "")
    if not moment.isdigit() or abs(time.time() - int(moment)) > 300:
        return False
    wanted = hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    return any(name == "v1" and hmac.compare_digest(wanted, value) for name, value in parts)'''

JAVASCRIPT: Final = """\
import { createHmac, timingSafeEqual } from "node:crypto";

// body: the Buffer as it came. header: X-Sekisho-Signature.
export function isGenuine(body, header, secret) {
  const parts = header.split(",").map((part) => part.split("="));
  const moment = (parts.find(([name]) => name === "t") ?? [])[1] ?? "";
  if (!/^\\d+$/.test(moment) || Math.abs(Date.now() / 1000 - Number(moment)) > 300) return false;
  const wanted = createHmac("sha256", secret).update(moment + ".").update(body).digest();
  return parts.some(([name, value]) => {
    const given = Buffer.from(value ?? "", "hex");
    return name === "v1" && given.length === wanted.length && timingSafeEqual(given, wanted);
  });
}"""
