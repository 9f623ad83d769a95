"""`python -m gateway.simulator`: the stand-in as a process of its own. Needs no Django, and no monkey patching.

SIGTERM and SIGINT end it as they end vLLM. SIGUSR1: connections are refused; SIGUSR2: they are taken again.
"""

import argparse
import gc
import signal
import sys
from dataclasses import fields
from typing import Final

import gevent
from gevent.event import Event

from gateway.simulator.asks import Served
from gateway.simulator.knobs import Knobs
from gateway.simulator.model import Model
from gateway.simulator.server import IDLE_S, Server

MAX_MODEL_LEN: Final = 8192  # tokens, unless the knob says otherwise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="manage.py simulate", description="A vLLM stand-in with the real wire format.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0: any free one (default 9001)")
    parser.add_argument("--model", action="append", help="a served model name; may be repeated (default tiny)")
    parser.add_argument("--api-key", help="then /v1/* needs it as Bearer")
    parser.add_argument("--slow-start-s", type=float, default=0.0, help="refuse connections for so long at first")
    parser.add_argument("--keep-alive-s", type=float, default=IDLE_S, help="close idle connections after this (default 5)")
    parser.add_argument("--shutdown-timeout", type=float, default=0.0, help="seconds for running requests on SIGTERM")
    parser.add_argument("--no-tools", action="store_true", help="as vLLM without --tool-call-parser")
    for option in (
        "--enable-force-include-usage",
        "--enable-prompt-tokens-details",
        "--enable-per-request-metrics",
        "--enable-request-id-headers",
    ):
        parser.add_argument(option, action="store_true", help="as in vLLM")
    for knob in fields(Knobs):
        name = f"--{knob.name.replace('_', '-')}"
        if isinstance(knob.default, bool):
            parser.add_argument(name, action="store_true", default=None, help=knob.metadata["meaning"])
        else:
            parser.add_argument(name, metavar="VALUE", help=knob.metadata["meaning"])
    return parser


def _model(options: argparse.Namespace) -> Model:
    """Raises KnobError."""
    served = Served(
        models=tuple(options.model or ("tiny",)),
        max_model_len=MAX_MODEL_LEN,
        has_tools=not options.no_tools,
        forces_usage=options.enable_force_include_usage,
        shows_prompt_details=options.enable_prompt_tokens_details,
        shows_request_metrics=options.enable_per_request_metrics,
        shows_request_ids=options.enable_request_id_headers,
    )
    given = {knob.name: getattr(options, knob.name) for knob in fields(Knobs)}
    knobs = Knobs().turned({name: value for name, value in given.items() if value is not None})
    return Model(served, knobs, options.api_key)


def main(arguments: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    stopped = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stopped.set)
    try:
        server = Server(_model(options), options.host, options.port, keep_alive_s=options.keep_alive_s)
    except (ValueError, OSError) as error:
        parser.exit(1, f"simulate: {error}\n")
    gevent.signal_handler(signal.SIGUSR1, server.refuse)
    gevent.signal_handler(signal.SIGUSR2, server.accept)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # 10,000 remembered calls are not looked through every few hundred requests
    server.serve(slow_start_s=options.slow_start_s)
    host, port = server.address
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sys.stdout.write(f"simulated vLLM on http://{address} serves {', '.join(server.model.served.models)}\n")
    sys.stdout.flush()
    stopped.wait()
    server.stop(options.shutdown_timeout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
