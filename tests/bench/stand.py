"""What the side-by-side bench needs of Sekisho before its gateway starts: stores of its own, a configuration, a key.

    python -m tests.bench.stand FOLDER MOCK_PORT [--policies] [--tenants N]

Returns when all is published; FOLDER/valkey.pid names the store. It stays, and ends when the gateway
whose id is in FOLDER/gateway.pid has ended. Everything is on: a key with scopes, limits of six kinds on tenant,
alias and key, prices, metering, journal, metrics and log. See sekisho.toml.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from portal.settings import env
from tests import processes

MODELS = ("mock", "mock-n100-d0", "mock-n100-d10")  # the names that the load generator calls
BIG = 10**15
LIMITS = (
    *("requests_per_minute", "tokens_per_hour", "tokens_per_day", "tokens_per_month"),
    *("concurrent_requests", "money_per_month"),
)
RULES = [
    {"name": "words", "kind": "keywords", "words": ["ALPHA-77", "秘密計画"], "where": ["input", "output"], "action": "block"},
    {"name": "mail", "kind": "detector", "detector": "email", "where": ["input", "output"], "action": "redact"},
]
KEY = "bench-key-of-no-value-0123456789"  # as in sekisho.toml
SPENT_KEY = "bench-key-that-has-spent-all-0123456789"  # every call of it is a 429
START_S = 600.0  # 100,000 keys on a busy machine
GATEWAY_STARTS_WITHIN_S = 120.0


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    folder: Path = options.folder
    if options.holds:
        hold(options)
        return 0
    (folder / "ready").unlink(missing_ok=True)
    (folder / "gateway.pid").unlink(missing_ok=True)
    log = (folder / "stand.log").open("ab")
    holder = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.stand", *arguments, "--holds"], stdout=log, stderr=log, start_new_session=True
    )
    until_s = time.monotonic() + START_S
    while not (folder / "ready").exists():
        if holder.poll() is not None or time.monotonic() > until_s:
            print(f"the stores did not start; see {folder / 'stand.log'}", file=sys.stderr)
            return 1
        time.sleep(0.1)
    return 0


@contextmanager
def standing(
    backend_port: int, *arguments: str, config: Path = processes.GATEWAY, **environment: str
) -> Iterator[processes.Gateway]:
    """One gateway worker over a stand of its own, for as long as the block lasts. arguments: the stand's own; its settings."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "home"
        stand = [sys.executable, "-m", "tests.bench.stand", str(folder), str(backend_port), *arguments]
        subprocess.run(stand, check=True, env=os.environ | {"SEKISHO_HOME": str(home)})
        redis_url = env.embedded_redis_url(home)
        settings = {"SEKISHO_HOME": str(home), **environment}
        with processes.gateway(folder / "gateway", redis_url=redis_url, config=config, **settings) as running:
            (folder / "gateway.pid").write_text(str(running.process.pid))
            yield running
        valkey = Path("/proc") / (folder / "valkey.pid").read_text()
        processes.wait_until(lambda: not valkey.exists(), "the stores did not end")


def hold(options: argparse.Namespace) -> None:
    """Start the stores, write the configuration, and keep Valkey for as long as the gateway lives."""
    import django

    from portal import home

    state = home.prepare(None)
    os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings.web"
    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    from portal import embedded

    folder: Path = options.folder
    valkey = embedded.start_valkey(state, durable=False)
    try:
        postgres = embedded.start_postgres(state, durable=False)
        try:
            call_command("migrate", verbosity=0)
            configure(options.mock_port, has_policies=options.policies, tenants=options.tenants)
        finally:
            postgres.stop()
        assert valkey.url == settings.REDIS_URL
        (folder / "valkey.pid").write_text(str(valkey.process.pid))
        (folder / "ready").touch()
        _await_end(folder / "gateway.pid")
    finally:
        valkey.stop()


def configure(mock_port: int, *, has_policies: bool, tenants: int) -> None:
    """One tenant with a key and all limits, and `tenants` more of a hundred keys each."""
    from accounts import issuing
    from accounts.models import ApiKey, Tenant
    from gateway import recovery
    from gateway.config import policies, publish
    from gateway.models import Backend, Deployment, Limit, ModelAlias, PoolMember
    from usage import limits

    by = {"actor": None, "actor_label": "bench"}
    tenant = Tenant.objects.create(slug="bench", name="Bench")
    backend = Backend.objects.create(name="mock", url=f"http://127.0.0.1:{mock_port}")
    aliases = []
    for model in MODELS:
        deployment = Deployment.objects.create(name=model, served_model=model)
        PoolMember.objects.create(deployment=deployment, backend=backend)
        alias = ModelAlias(tenant=tenant, name=model, deployment=deployment, price_prompt=1, price_completion=2)
        alias.save()
        aliases.append(alias)
    if has_policies:
        policy = policies.create(tenant, "bench", is_everywhere=True, **by)
        policies.save_draft(policy, RULES, **by)
        policies.publish(policy, **by)
    key = issuing.import_key(tenant, issuing.Terms("bench"), KEY, **by)
    for holder in (tenant, key, *aliases):
        Limit.replace_all(holder, [limits.Limit(name, BIG) for name in LIMITS])
    spent = issuing.import_key(tenant, issuing.Terms("spent"), SPENT_KEY, **by)
    Limit.replace_all(spent, [limits.Limit("tokens_per_month", 1)])
    for number in range(tenants):
        other = Tenant(slug=f"other-{number}", name=f"Other {number}")
        other.save()
        ApiKey.objects.bulk_create(
            ApiKey(tenant=other, name=f"k{i}", lookup_id=f"{number}-{i}", pepper_id="k1", digest="0" * 64, scopes=["chat"])
            for i in range(100)
        )
    publish.publish_all()
    recovery.restore_counters()


def _await_end(pid_file: Path) -> None:
    until_s = time.monotonic() + GATEWAY_STARTS_WITHIN_S
    while not pid_file.exists():
        if time.monotonic() > until_s:
            return
        time.sleep(0.2)
    process = Path("/proc") / pid_file.read_text().strip()
    while process.exists():
        time.sleep(0.5)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stand")
    parser.add_argument("folder", type=Path)
    parser.add_argument("mock_port", type=int)
    parser.add_argument("--policies", action="store_true", help="with a content policy on every call")
    parser.add_argument("--tenants", type=int, default=0, metavar="N", help="N more tenants, of a hundred keys each")
    parser.add_argument("--holds", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
