"""What output rules cost a streamed event in the gateway, sockets and all: .venv/bin/python -m tests.bench.guard

One gateway worker before a simulated vLLM; some streams at a time, at the pace of a GPU. CPU time of the worker by event, for
an alias without rules and for others with, in turn: only ratios within one run are worth anything.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import requests

from tests.bench.database import database
from tests.bench.simulator import cpu_s

STREAMS, TOKENS, ROUNDS = 16, 600, 5
WHERE: Final = ["output"]
RULES: Final[dict[str, list[dict[str, Any]]]] = {
    "no rule": [],
    "2 keywords, 1 pattern, 2 detectors": [
        {"kind": "keywords", "words": ["機密コード", "ALPHA-77"], "where": WHERE, "action": "block"},
        {"kind": "pattern", "pattern": "案件[A-Z]{3}-[0-9]{2}", "where": WHERE, "action": "redact"},
        {"kind": "detector", "detector": "jp_phone", "where": WHERE, "action": "redact"},
        {"kind": "detector", "detector": "credit_card", "where": WHERE, "action": "redact"},
    ],
    "1,000 keywords": [
        {"kind": "keywords", "words": [f"Project-{n:04d}" for n in range(1_000)], "where": WHERE, "action": "block"}
    ],
    "e-mail": [{"kind": "detector", "detector": "email", "where": WHERE, "action": "redact"}],
}


@contextmanager
def gateway_with_aliases() -> Iterator[tuple[Any, str]]:
    with database(), ExitStack() as stack:
        from django.db import connection

        from accounts import issuing
        from accounts.models import Tenant
        from gateway.config import policies
        from gateway.models import Backend, Deployment, ModelAlias, PoolMember
        from portal import embedded
        from tests import processes
        from tests.e2e.conftest import BY, publish
        from tests.simulator import simulator

        home = Path(os.environ["SEKISHO_HOME"])
        stack.callback(connection.close)
        stack.callback(embedded.start_valkey(home, durable=False).stop)
        vllm = stack.enter_context(simulator("--tokens-per-s=200"))
        tenant = Tenant.objects.create(slug="acme", name="Acme")
        _, secret = issuing.issue(tenant, issuing.Terms(name="ci"), **BY)
        deployment = Deployment.objects.create(name="tiny", served_model="tiny")
        PoolMember.objects.create(deployment=deployment, backend=Backend.objects.create(name="gpu", url=vllm.url))
        for number, rules in enumerate(RULES.values()):
            name = f"rules-{number}"
            if rules:
                made = policies.create(tenant, name, **BY)
                policies.save_draft(made, rules, **BY)
                policies.publish(made, **BY)
            bound = [name] if rules else []
            ModelAlias.objects.create(tenant=tenant, name=f"alias-{number}", deployment=deployment, policies=bound)
        publish()
        yield stack.enter_context(processes.gateway(home / "gateway", workers=1)), secret


def stream(url: str, secret: str, alias: str) -> None:
    body = {"model": alias, "stream": True, "max_tokens": TOKENS, "ignore_eos": True}
    body["messages"] = [{"role": "user", "content": f"Tell me of the road. {alias}"}]
    answer = requests.post(f"{url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"}, timeout=120)
    if not answer.content.endswith(b"[DONE]\n\n"):
        raise RuntimeError(answer.text[-300:])


def main() -> None:
    with gateway_with_aliases() as (gateway, secret), ThreadPoolExecutor(STREAMS) as pool:
        [worker] = gateway.workers()
        used_s = dict.fromkeys(RULES, 0.0)
        for turn in range(ROUNDS + 1):
            for number, name in enumerate(RULES):
                begin_s = cpu_s(worker)
                list(pool.map(stream, *zip(*[(gateway.url, secret, f"alias-{number}")] * STREAMS, strict=True)))
                used_s[name] += cpu_s(worker) - begin_s if turn else 0.0  # the first is for warming up
        plain_s = used_s["no rule"]
        for name, seconds in used_s.items():
            each_us = seconds / (ROUNDS * STREAMS * TOKENS) * 1e6
            sys.stdout.write(f"{name:<40}{each_us:6.1f} us of CPU an event, {seconds / plain_s:.2f} times the plain relay\n")


if __name__ == "__main__":
    main()
