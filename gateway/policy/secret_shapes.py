"""How keys and tokens are written, by who gives them out. Pure.

RE2 looks in lower-cased text; whether the capitals are right, the check sees in what the client wrote.
"""

import base64
import binascii
import json
import re
import unicodedata
from typing import Final

from accounts.keys import CHECKSUM_LENGTH, LOOKUP_LENGTH, PREFIX, SECRET_LENGTH, is_minted
from gateway.policy.shapes import Shape

# As their makers write them, capitals and all. Each begins with what nothing else begins with, so that a long one need not be
# bounded: whoever counts to 200 has 200 places in which each new text may stand.
_TOKENS: Final = (
    r"(?:AKIA|ASIA)[A-Z2-7]{16}\b",  # AWS access key ids: base 32
    r"(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{36}\b",
    r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b",
    r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-[A-Za-z0-9_-]{20,}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{20,}",  # Slack
    r"xapp-[0-9]-[A-Z0-9]{8,16}-[0-9]{8,16}-[a-f0-9]{40,80}\b",
    r"hooks\.slack\.com/services/T[A-Z0-9]{6,14}/B[A-Z0-9]{6,14}/[A-Za-z0-9]{20,30}\b",
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"GOCSPX-[A-Za-z0-9_-]{28}",
    r"ya29\.[A-Za-z0-9_-]{30,}",
    r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{24,}\b",  # Stripe
    r"whsec_[A-Za-z0-9+/]{32,}",
    r"hf_[A-Za-z0-9]{34}\b",
    r"npm_[A-Za-z0-9]{36}\b",
    r"pypi-AgE[A-Za-z0-9_-]{50,}",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",  # SendGrid
)
_EXACT: Final = re.compile("|".join(_TOKENS), re.ASCII)

_PEM_NAME: Final = "(?:rsa |dsa |ec |openssh |encrypted |pgp )?private key(?: block)?"
# Base 64, its line ends, indents and quotes. Unbounded on purpose, as is the payload of a JWT: counted to 3,440 it makes a
# program of 80,000 instructions, and 4 KB of words that were never seen took 2 s. It ends at the next dash or full stop.
_PEM_CHARACTER: Final = r"[a-z0-9+/=\\\"',\s]"
_PEM_HEADER: Final = re.compile("-+begin [^-]*-+", re.IGNORECASE)
_LONG_RUN: Final = re.compile(r"[A-Za-z0-9+/=]{24}", re.ASCII)

_JWT: Final = "[a-z0-9_-]"
_SK: Final = re.compile(r"sk-[A-Za-z0-9_-]{20,}", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-f]{32}")

_NAMES: Final = "(?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?token|ぱすわーど)"
_ASSIGNED: Final = re.compile(r"""["']?\s?[:=]\s?["'](.{10,64})["']\Z""", re.DOTALL)
_URL: Final = re.compile("://(.{0,64}):(.{6,64})@", re.DOTALL)
# What stands where a password would, in examples and templates.
_PLACEHOLDER: Final = re.compile(
    r"pass(?:w(?:or)?d)?\b|password|secret|change|example|your|xxx|dummy|sample|placeholder|token|redacted|\*\*|test|api",
    re.IGNORECASE,
)


def _written(text: str) -> str:
    """What the client wrote, capitals kept: half width, without characters that nobody sees."""
    return "".join(char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")


def _is_token(text: str) -> bool:
    return _EXACT.fullmatch(_written(text)) is not None


def _is_ours(text: str) -> bool:
    return is_minted(_written(text))


def _is_sk(text: str) -> bool:
    """OpenAI, Anthropic and who follows them. Words with dashes between are none, and ours have their own shape."""
    written = _written(text)
    if _SK.fullmatch(written) is None or written.startswith(PREFIX):
        return False
    body = written[3:]
    mixed = any(map(str.isupper, body)) and any(map(str.islower, body)) and sum(map(str.isdigit, body)) >= 2
    return mixed or _HEX.search(body) is not None


def _is_private_key(text: str) -> bool:
    """With a key in it: the header alone stands in every manual."""
    return _LONG_RUN.search(_PEM_HEADER.sub("", _written(text))) is not None


def _is_jwt(text: str) -> bool:
    """RFC 7519: its header is JSON, and names the algorithm."""
    header = _written(text).split(".")[0]
    try:
        return "alg" in json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (binascii.Error, ValueError, TypeError):
        return False


def _is_assigned_secret(text: str) -> bool:
    """A literal that looks made by a generator or a careful person: what else is quoted there is names and examples."""
    match = _ASSIGNED.search(_written(text))
    return match is not None and _is_strong(match[1])


def _is_strong(value: str) -> bool:
    if _PLACEHOLDER.search(value):
        return False
    kinds = (str.isupper, str.islower, str.isdigit, lambda char: char in "!#%&*+=?@^~")
    return sum(any(map(kind, value)) for kind in kinds) >= 3 and any(map(str.isdigit, value))


def _is_password_in_url(text: str) -> bool:
    match = _URL.fullmatch(_written(text))
    return match is not None and match[1] != match[2] and any(map(str.isdigit, match[2])) and not _PLACEHOLDER.search(match[2])


SECRET: Final = (
    Shape(rf"\b{PREFIX}[0-9a-z]{{{LOOKUP_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH}}}", _is_ours),
    Shape(r"\b(?:" + "|".join(_TOKENS).lower() + ")", _is_token),
    Shape(r"\bsk-[a-z0-9_-]{20,}", _is_sk),
    Shape(
        rf"-{{2,5}}begin {_PEM_NAME}-{{2,5}}{_PEM_CHARACTER}{{40}}{_PEM_CHARACTER}*(?:-{{2,5}}end {_PEM_NAME}-{{2,5}})?",
        _is_private_key,
    ),
    Shape(rf"\beyj{_JWT}{{12}}{_JWT}*\.eyj{_JWT}{{8}}{_JWT}*\.{_JWT}{{16}}{_JWT}*", _is_jwt),
    Shape(rf"""{_NAMES}["']?\s?[:=]\s?["'][a-z0-9!#%&*+=?@^_~()|$;<>-]{{10,}}["']""", _is_assigned_secret),
    Shape(r"aws_secret_access_key[\"']?\s?[:=]\s?[\"']?[a-z0-9/+]{40}\b"),
    Shape(r"://[a-z0-9._%-]*:[a-z0-9._%!#&*+=?^~$-]{6,}@", _is_password_in_url),
)
