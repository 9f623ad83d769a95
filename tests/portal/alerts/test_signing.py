"""The signature of webhooks: what verifies it, and what does not; the programs on the page do the same."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from portal.alerts import signing

BODY = b'{"type": "test"}'
NOW_S = 1_800_000_000.0


def test_both_secrets_of_an_overlap_verify_and_no_other() -> None:
    new, old, other = (signing.new_secret() for _ in range(3))
    header = signing.sign(BODY, [new, old], now_s=NOW_S)
    assert signing.is_signed(BODY, header, new, now_s=NOW_S)
    assert signing.is_signed(BODY, header, old, now_s=NOW_S + 299)
    assert not signing.is_signed(BODY, header, other, now_s=NOW_S)


@pytest.mark.parametrize(
    ("body", "header", "now_s"),
    [
        (BODY + b" ", None, NOW_S),
        (BODY, None, NOW_S + 301),
        (BODY, None, NOW_S - 301),
        (BODY, "t=1800000000", NOW_S),
        (BODY, "t=1800000000,v1=", NOW_S),
        (BODY, "t=1800000000,v1=é", NOW_S),
        (BODY, "", NOW_S),
        (BODY, "t=٣,v1=x", NOW_S),
    ],
)
def test_what_was_changed_or_is_old_does_not_verify(body: bytes, header: str | None, now_s: float) -> None:
    key = "whsec_x"
    sent = signing.sign(BODY, [key], now_s=NOW_S) if header is None else header
    assert not signing.is_signed(body, sent, key, now_s=now_s)


def test_the_python_program_of_the_page_verifies() -> None:
    program: dict[str, Any] = {}
    exec(signing.PYTHON, program)  # noqa: S102 - as a reader would run it
    old, new = signing.new_secret(), signing.new_secret()
    header = signing.sign(BODY, [new, old], now_s=time.time())
    assert program["is_genuine"](BODY, header, old)
    assert program["is_genuine"](BODY, header, new)
    assert not program["is_genuine"](BODY + b"x", header, new)
    assert not program["is_genuine"](BODY, signing.sign(BODY, [new], now_s=time.time() - 400), new)
    assert not program["is_genuine"](BODY, "nonsense", new)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_javascript_program_of_the_page_verifies(tmp_path: Path) -> None:
    key = signing.new_secret()
    header = signing.sign(BODY, [signing.new_secret(), key], now_s=time.time())
    ask = "\nconst [body, header, key] = process.argv.slice(2);\nconsole.log(isGenuine(Buffer.from(body), header, key));"
    (tmp_path / "verify.mjs").write_text(signing.JAVASCRIPT + ask)

    def verdict(body: bytes, header: str) -> str:
        asked = ["node", str(tmp_path / "verify.mjs"), body.decode(), header, key]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    assert verdict(BODY, header) == "true"
    assert verdict(BODY + b"x", header) == "false"
    assert verdict(BODY, "nonsense") == "false"
