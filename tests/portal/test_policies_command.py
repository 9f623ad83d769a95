"""`manage.py policies`: the bench with its exit codes, lists, and the two ways a version becomes the published one."""

import json
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import AuditEvent, Tenant
from gateway.config import policies
from gateway.models import ContentPolicy

pytestmark = pytest.mark.django_db
BY: Any = {"actor": None, "actor_label": "test"}
BLOCK: dict[str, Any] = {"kind": "keywords", "words": ["alpha"], "where": ["output"], "action": "block"}
FLAG = {**BLOCK, "words": ["beta"], "action": "flag"}


def run(*words: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `manage.py policies ...`."""
    out, err, code = StringIO(), StringIO(), 0
    try:
        call_command("policies", *map(str, words), stdout=out, stderr=err)
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


def made(tenant: Tenant | None, name: str, *rules: dict[str, Any], everywhere: bool = False) -> ContentPolicy:
    policy = policies.create(tenant, name, is_everywhere=everywhere, **BY)
    policies.save_draft(policy, list(rules), **BY)
    policies.publish(policy, **BY)
    return policy


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_text("one beta,\nthen ＡＬＰＨＡ")
    return path


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("- {kind: keywords, name: words, words: [alpha], where: output, action: redact}")
    return path


def refused(*words: object) -> str:
    """What is said of bad input."""
    with pytest.raises(CommandError) as caught:
        run("test", *words)
    assert caught.value.returncode == 2
    return str(caught.value)


def test_rules_of_a_file_are_tried(text: Path, rules: Path) -> None:
    code, out, _ = run("test", text, "--rules", rules)
    verdict, match, *passed = out.splitlines()
    assert code == 1
    assert verdict.startswith("masked, in ")
    assert verdict.endswith(" ms")
    assert match == '  2:6 [15:20] redact by mine version 0, rule words (keywords) "ＡＬＰＨＡ"'
    assert passed == ["passes:", "one beta,", "then [REDACTED_1]"]
    rules.write_text(f"name: any\nrules: {json.dumps([FLAG])}")
    assert run("test", text, "--rules", rules)[0] == 0
    assert run("test", text, "--rules", rules, "--surface", "input.user")[1].startswith("clean, in ")


def test_text_may_come_on_stdin(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO("機密 alpha".encode())))
    code, out, _ = run("test", "-", "--rules", rules, "--json")
    told = json.loads(out)
    assert (code, told["verdict"], told["passed"]) == (1, "masked", "機密 [REDACTED_1]")
    by = {"policy": "mine", "version": 0, "rule": "words", "kind": "keywords", "action": "redact"}
    assert told["matches"] == [by | {"start": 3, "end": 8, "line": 1, "column": 4, "text": "alpha"}]
    assert told["duration_ms"] > 0


def test_published_policies_are_tried(text: Path, acme: Tenant, globex: Tenant) -> None:
    made(None, "all", FLAG, everywhere=True)
    made(None, "some", FLAG)
    made(acme, "some", BLOCK)
    made(acme, "own", BLOCK, everywhere=True)
    made(globex, "theirs", BLOCK, everywhere=True)
    assert run("test", text)[0] == 0
    code, out, _ = run("test", text, "--tenant", "acme")
    assert code == 1
    assert out.splitlines()[1:] == [
        '  1:5 [4:8] flag by all version 1, rule 1 (keywords) "beta"',
        '  2:6 [15:20] block by own version 1, rule 1 (keywords) "ＡＬＰＨＡ"',
        "a stream would send before the block:",
        "one beta,",
        "then ",
    ]
    assert run("test", text, "--policy", "some")[0] == 0
    assert run("test", text, "--tenant", "acme", "--policy", "some")[0] == 1
    assert "No such policy is published: theirs. There are: all, own, some." in refused(
        text, "--tenant", "acme", "--policy", "theirs"
    )


def test_what_cannot_be_tried_is_said(text: Path, rules: Path) -> None:
    rules.write_text("[{kind: judge, alias: guard, where: [input.user], action: block}]")
    code, _, err = run("test", text, "--rules", rules, "--surface", "input.user")
    assert (code, err) == (0, "mine/1 is not tried here: it needs a whole call.\n")


def test_bad_input_is_told_and_ends_with_2(tmp_path: Path, text: Path, rules: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert refused(nowhere, "--rules", rules) == f"{nowhere} cannot be read: No such file or directory."
    assert refused(text, "--rules", nowhere) == f"{nowhere} cannot be read: No such file or directory."
    assert refused(text) == "No policy applies everywhere: name some with --policy, or give --rules."
    assert refused(text, "--tenant", "acme") == "No tenant “acme”. There are: none yet."
    rules.write_text("rules:\n- kind: keywords\n  words: [a]\n  where: [here]\n  action: block\n")
    assert refused(text, "--rules", rules).startswith(f"{rules}:\nrules[0].where[0]: must be one of input, output,")
    assert refused(text, "--rules", rules).endswith(" (line 4)")
    rules.write_text("a: [")
    assert refused(text, "--rules", rules).startswith(f"{rules}:\n")
    text.write_bytes("会社".encode("shift_jis"))
    assert refused(text, "--rules", rules) == f"{text} is not UTF-8."


def test_policies_are_listed(acme: Tenant) -> None:
    made(None, "all", FLAG, everywhere=True)
    own = made(acme, "own", BLOCK)
    policies.save_draft(own, [], **BY)
    lines = run("list")[1].splitlines()
    assert [line.split() for line in lines] == [
        ["TENANT", "NAME", "EVERYWHERE", "PUBLISHED", "DRAFT", "USED", "BY"],
        ["acme", "own", "False", "1", "2"],
        ["-", "all", "True", "1", "-"],
    ]
    [told] = json.loads(run("list", "--tenant", "acme", "--json")[1])
    expected = {"tenant": "acme", "name": "own", "everywhere": False, "published": 1, "draft": 2, "used_by": []}
    assert told == expected
    assert [row["name"] for row in json.loads(run("list", "--platform", "--json")[1])] == ["all"]


def test_draft_is_published_and_rolled_back(acme: Tenant) -> None:
    policy = made(acme, "own", BLOCK)
    policies.save_draft(policy, [BLOCK, FLAG], **BY)
    assert run("publish", "--tenant", "acme", "own")[2] == "acme/own is at version 2.\n"
    assert run("rollback", "--tenant", "acme", "own", "1")[2] == "acme/own is at version 1 again.\n"
    policies.save_draft(policy, [], **BY)
    lines = run("versions", "--tenant", "acme", "own")[1].splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["1", "published"], ["2", "-"], ["3", "draft"]]
    told = json.loads(run("versions", "--tenant", "acme", "own", "--json")[1])
    assert [version["rules"] for version in told] == [[BLOCK], [BLOCK, FLAG], []]
    labels = AuditEvent.objects.exclude(actor_label="test").order_by("sequence").values_list("verb", "actor_label")
    assert list(labels) == [
        ("policy.published", "command: policies publish"),
        ("policy.rolled_back", "command: policies rollback"),
    ]


def test_what_cannot_be_is_told(acme: Tenant) -> None:
    made(acme, "own", BLOCK)
    for words, said in {
        ("publish", "own"): "The platform has no policy “own”. There are: none yet.",
        ("publish", "--tenant", "acme", "owm"): "acme has no policy “owm”. There are: own.",
        ("publish", "--tenant", "acme", "own"): "“own” has no draft.",
        ("rollback", "--tenant", "acme", "own", "1"): "“own” is at version 1 already.",
        ("rollback", "--tenant", "acme", "own", "9"): "“own” has no published version 9.",
    }.items():
        with pytest.raises(CommandError) as caught:
            run(*words)
        assert str(caught.value) == said
