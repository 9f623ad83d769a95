"""`manage.py policies test|list|versions|publish|rollback`: content policies from the shell, and a bench to try them on a text.

Stdout holds the result, or its JSON, and nothing else; words for people go to stderr.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import yaml
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from accounts import audit
from accounts.models import Tenant
from gateway.config import policies, policy_rules, source
from gateway.models import ContentPolicy, ContentPolicyVersion
from gateway.policy.rules import SURFACES, Policy, RulesRefused, parse_rules
from gateway.policy.trial import Match, Trial, try_text
from portal import named
from portal.terminal import table

SHOWN_LENGTH: Final = 60


class Command(BaseCommand):
    help = "Try content policies on a text; list, publish and roll back their versions."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        test = verbs.add_parser("test", help="what becomes of a text; exit code 1: it is blocked or masked, 2: bad input")
        test.add_argument("file", help="a text in UTF-8; - is stdin")
        test.add_argument("--tenant", metavar="SLUG", help="whose policies; default: the platform's alone")
        which = test.add_mutually_exclusive_group()
        which.add_argument("--policy", action="append", metavar="NAME", help="may be repeated; default: those of all calls")
        which.add_argument("--rules", type=Path, metavar="RULES.yaml", help="a list of rules, or a mapping with `rules`")
        test.add_argument("--surface", choices=SURFACES, default="output.content", help="where the text stands; output.content")
        test.add_argument("--json", action="store_true", help="print one JSON object")

        listing = verbs.add_parser("list", help="show policies; default: all of them")
        whose = listing.add_mutually_exclusive_group()
        whose.add_argument("--tenant", metavar="SLUG")
        whose.add_argument("--platform", action="store_true", help="the platform's alone")
        listing.add_argument("--json", action="store_true", help="print one JSON list")

        versions = verbs.add_parser("versions", help="show the versions of a policy")
        _add_policy(versions)
        versions.add_argument("--json", action="store_true", help="print one JSON list, with the rules")
        publish = verbs.add_parser("publish", help="judge calls by the draft from now on")
        _add_policy(publish)
        rollback = verbs.add_parser("rollback", help="judge calls by an earlier version again")
        _add_policy(rollback)
        rollback.add_argument("number", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        verbs = {
            "test": self._test,
            "list": self._list,
            "versions": self._versions,
            "publish": self._publish,
            "rollback": self._rollback,
        }
        verbs[options["verb"]](options)

    def _test(self, options: dict[str, Any]) -> None:
        try:
            text, judged_by = _text(options["file"]), _judged_by(options)
        except CommandError as error:
            error.returncode = 2
            raise
        trial = try_text(judged_by, text, options["surface"])
        if options["json"]:
            self.stdout.write(json.dumps(asdict(trial), ensure_ascii=False))
        else:
            self.stdout.write("\n".join(_lines(trial)))
            for rule in trial.untried:
                self.stderr.write(f"{rule} is not tried here: it needs a whole call.", self.style.WARNING)
        if trial.verdict in ("blocked", "masked"):
            sys.exit(1)

    def _list(self, options: dict[str, Any]) -> None:
        rows = ContentPolicy.objects.select_related("tenant", "published").prefetch_related("versions")
        if options["tenant"] is not None:
            rows = rows.for_tenant(named.tenant(options["tenant"]))
        elif options["platform"]:
            rows = rows.filter(tenant=None)
        facts = [_policy_facts(row) for row in rows.order_by("tenant__slug", "name")]
        columns = ("tenant", "name", "everywhere", "published", "draft", "used_by")
        self.stdout.write(json.dumps(facts) if options["json"] else table(facts, columns))

    def _versions(self, options: dict[str, Any]) -> None:
        policy = _policy(options)
        rows = policy.versions.order_by("number")
        facts = [_version_facts(row, policy) for row in rows]
        if options["json"]:
            told = [{**fact, "rules": row.rules} for fact, row in zip(facts, rows, strict=True)]
            self.stdout.write(json.dumps(told, ensure_ascii=False, cls=DjangoJSONEncoder))
        else:
            self.stdout.write(table(facts, ("number", "state", "rules", "created_at", "created_by")))

    def _publish(self, options: dict[str, Any]) -> None:
        policy = _policy(options)
        try:
            version = policies.publish(policy, **_by("publish"))
        except (policies.PolicyError, RulesRefused) as error:
            raise CommandError(str(error)) from None
        self._say(f"{policy.label} is at version {version.number}.")

    def _rollback(self, options: dict[str, Any]) -> None:
        policy = _policy(options)
        try:
            version = policies.roll_back(policy, options["number"], **_by("rollback"))
        except (policies.PolicyError, RulesRefused) as error:
            raise CommandError(str(error)) from None
        self._say(f"{policy.label} is at version {version.number} again.")

    def _say(self, text: str) -> None:
        self.stderr.write(text, self.style.SUCCESS)


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tenant", metavar="SLUG", help="whose policy it is; default: the platform's")
    parser.add_argument("name")


def _by(verb: str) -> audit.By:
    return {"actor": None, "actor_label": f"command: policies {verb}"}


def _owner(options: dict[str, Any]) -> Tenant | None:
    return None if options["tenant"] is None else named.tenant(options["tenant"])


def _policy(options: dict[str, Any]) -> ContentPolicy:
    return named.policy(options["name"], _owner(options))


def _text(file: str) -> str:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file} is not UTF-8.") from None


def _judged_by(options: dict[str, Any]) -> list[Policy]:
    if options["rules"] is not None:
        return [_written(options["rules"])]
    tenant = _owner(options)
    rows = ContentPolicy.objects.published().filter(tenant=None).order_by("name")
    platform = {row.name: policies.as_published(row) for row in rows}
    own = {}
    if tenant is not None:
        own = {row.name: policies.as_published(row) for row in ContentPolicy.objects.published().for_tenant(tenant)}
    if options["policy"] is None:
        everywhere = [policy for policy in (*platform.values(), *own.values()) if policy.is_everywhere]
        if not everywhere:
            raise CommandError("No policy applies everywhere: name some with --policy, or give --rules.")
        return everywhere
    known = platform | own
    if unknown := sorted(set(options["policy"]) - known.keys()):
        told = ", ".join(sorted(known)) or "none yet"
        raise CommandError(f"No such policy is published: {', '.join(unknown)}. There are: {told}.")
    return [known[name] for name in dict.fromkeys(options["policy"])]


def _written(path: Path) -> Policy:
    """The rules of a file, as a policy of the file's name."""
    try:
        place = source.load(path.read_text("utf-8-sig"))
        if isinstance(place.node, yaml.MappingNode):
            place = place.fields().get("rules", place)
        return Policy(path.stem, 0, parse_rules(policy_rules.rules(place)))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8.") from None
    except source.InvalidFile as error:
        raise CommandError(f"{path}:\n{error}") from None
    except source.Refused:
        raise CommandError(f"{path}:\n{source.InvalidFile(place.problems)}") from None


def _lines(trial: Trial) -> list[str]:
    shown = [f"{trial.verdict}, in {trial.duration_ms:.2f} ms"]
    shown += [f"  {name}: this release cannot read it, so that no call passes" for name in trial.unreadable]
    shown += [f"  {_line(match)}" for match in trial.matches]
    if trial.verdict == "masked":
        shown += ["passes:", trial.passed]
    elif trial.verdict == "blocked" and trial.passed:
        shown += ["a stream would send before the block:", trial.passed]
    return shown


def _line(match: Match) -> str:
    where = "the whole" if match.line is None else f"{match.line}:{match.column}"
    span = "" if match.start is None else f" [{match.start}:{'' if match.end is None else match.end}]"
    text = match.text if len(match.text) <= SHOWN_LENGTH else match.text[: SHOWN_LENGTH - 1] + "…"
    found = f" {json.dumps(text, ensure_ascii=False)}" if text else ""
    return f"{where}{span} {match.action} by {match.policy} version {match.version}, rule {match.rule} ({match.kind}){found}"


def _policy_facts(row: ContentPolicy) -> dict[str, Any]:
    draft = next((version.number for version in row.versions.all() if version.is_draft), None)
    return {
        "tenant": row.tenant.slug if row.tenant else None,
        "name": row.name,
        "everywhere": row.is_everywhere,
        "published": row.published.number if row.published else None,
        "draft": draft,
        "used_by": row.users(),
    }


def _version_facts(row: ContentPolicyVersion, policy: ContentPolicy) -> dict[str, Any]:
    state = "draft" if row.is_draft else "published" if row.pk == policy.published_id else None
    return {
        "number": row.number,
        "state": state,
        "rules": len(row.rules),
        "created_at": row.created_at,
        "created_by": row.created_by,
    }
