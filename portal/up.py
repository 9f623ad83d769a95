"""`manage.py up`: the whole of Sekisho on one machine, until Ctrl-C. `deploy/up` installs what it needs first.

Stdout gets the card, or with --json one line; the processes' own lines go to stderr, each behind the name of its role.
Django is not loaded here: settings refuse to load without the secrets made here, and it would take a second.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Final

from django.core.exceptions import ImproperlyConfigured

from portal import embedded, home, processes
from portal.settings import env
from portal.supervisor import RoleFailed, Stopped, Supervisor

GATEWAY_WORKERS: Final = max(1, min(2, os.cpu_count() or 1))


class CannotStart(Exception):
    """The message says why, and what to do."""


def main(arguments: list[str]) -> int:
    """Run until a signal (0) or a failure (1)."""
    started = time.monotonic()
    options = _parser().parse_args(arguments)
    supervisor = Supervisor(sys.stderr, folder=env.PROJECT)
    try:
        state = home.prepare(options.home)
        with home.lock(state):
            return _serve(supervisor, state, options, started)
    except (home.HomeUnusable, ImproperlyConfigured) as error:
        _say(str(error))
        return 1


def _serve(supervisor: Supervisor, state: Path, options: argparse.Namespace, started: float) -> int:
    supervisor.catch_signals()
    try:
        place = _place(state, options)
        prepared = _start(supervisor, place, options)
        home.record_addresses(state, home.Addresses(place.api, place.portal, os.getpid()))
        _tell(place, prepared, options, time.monotonic() - started)
        supervisor.run()
    except Stopped:
        _say("stopping ...")
    except (CannotStart, RoleFailed, embedded.StoreFailed, processes.NoFreePort) as error:
        _say(str(error))
        return 1
    finally:
        home.forget_addresses(state)
        supervisor.stop(("gateway", "portal", "worker"), ("simulator",))
    return 0


def _place(state: Path, options: argparse.Namespace) -> processes.Place:
    host = options.host
    try:
        portal_port = processes.free_port(host, options.portal_port)
        api_port = processes.free_port(host, options.api_port, taken=(portal_port,))
        simulator_port = processes.free_port("127.0.0.1", 0, taken=(portal_port, api_port))
    except OSError as error:
        raise CannotStart(f"--host {host} is no address of this machine ({error.strerror}).") from error
    for name, wanted, found in (("portal", options.portal_port, portal_port), ("API", options.api_port, api_port)):
        if wanted not in (0, found):
            _say(f"port {wanted} is taken: the {name} is on {found}.")
    return processes.Place(state, host, api_port, portal_port, simulator_port)


def _start(supervisor: Supervisor, place: processes.Place, options: argparse.Namespace) -> processes.Prepared:
    """Everything, up to the moment at which all of it serves."""
    if env.starts_valkey():
        supervisor.adopt(embedded.start_valkey(place.home))
    if env.starts_postgres():
        supervisor.adopt(embedded.start_postgres(place.home))
    if not (env.starts_valkey() and env.starts_postgres()):
        _check_stores()
    order = processes.Order(
        simulator_url=None if options.no_demo else place.simulator,
        needs_key=options.json,
        file=str(options.apply.absolute()) if options.apply else None,
    )
    # All load at once. The worker prepares tables and configuration; the gateway becomes ready when that is published.
    worker, report = processes.worker(place, order)
    supervisor.start(worker)
    supervisor.start(processes.gateway(place, workers=options.gateway_workers))
    supervisor.start(processes.portal(place))
    if not options.no_demo:
        supervisor.start(processes.simulator(place))
    supervisor.await_ready()
    return report.prepared()


def _check_stores() -> None:
    """Those that are not ours to start. Django is loaded for this alone."""
    import django

    django.setup()
    from portal import stores

    for finding in (stores.redis(), stores.database()):
        if not finding.is_good:
            raise CannotStart(f"{finding.name}: {finding.detail}. {finding.remedy}")


def _tell(place: processes.Place, prepared: processes.Prepared, options: argparse.Namespace, seconds: float) -> None:
    from portal import card

    if options.json:
        line = {
            "api": place.api,
            "portal": place.portal,
            "admin_email": prepared.admin_email,
            "admin_password": prepared.admin_password,
            "demo_key": prepared.demo_key,
        }
        print(json.dumps(line), flush=True)
        return
    facts = card.Facts(
        api=place.api,
        portal=place.portal,
        home=str(place.home),
        seconds=seconds,
        admin_email=prepared.admin_email,
        admin_password=prepared.admin_password,
        key=prepared.demo_key,
        demo_aliases=[] if options.no_demo else processes.DEMO_ALIASES,
    )
    print(card.render(facts, japanese=env.speaks_japanese()), flush=True)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal is gone: end in order all the same
        print(f"sekisho   | {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="manage.py up",
        description="Start everything on this machine: stores, gateway, portal, worker and, unless refused, a demo.",
        allow_abbrev=False,
    )
    parser.add_argument("--home", metavar="DIR", help="state: stores, secrets, logs (default: var in the checkout)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s)")
    parser.add_argument("--portal-port", type=_port, default=8000, metavar="N", help="if taken, the next; 0: any (8000)")
    parser.add_argument("--api-port", type=_port, default=8001, metavar="N", help="if taken, the next; 0: any (8001)")
    parser.add_argument("--gateway-workers", type=_count, default=GATEWAY_WORKERS, metavar="N", help="default: %(default)s")
    parser.add_argument("--no-demo", action="store_true", help="no demo tenant, no simulated vLLM")
    parser.add_argument("--apply", type=Path, metavar="FILE", help="configuration to apply once the stores are up")
    parser.add_argument(
        "--json",
        action="store_true",
        help="when ready, print one JSON line and nothing else: api (without /v1), portal, admin_email, "
        "admin_password (null after the first start), demo_key (a new one each time)",
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"“{text}” is no port; give a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"“{text}” is no number of workers; give one from 1 to 256")
    return int(text)
