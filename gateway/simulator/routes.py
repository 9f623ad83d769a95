"""The paths of the stand-in: vLLM's own, and /sim/* for whoever drives it."""

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import gevent
import orjson

from gateway.simulator import calls, errors, metrics, schema, tokens
from gateway.simulator.http11 import Request
from gateway.simulator.knobs import KnobError
from gateway.simulator.model import Model
from gateway.simulator.reply import Reply

Handler = Callable[[Model, Request, Reply], None]


def serve(model: Model, request: Request, reply: Reply) -> None:
    """Answer `request`. Raises what the connection ends by."""
    try:
        _handler(model, request)(model, request, reply)
    except errors.Refusal as refusal:
        reply.refuse(refusal)


def _handler(model: Model, request: Request) -> Handler:
    model.check_key(request.path, request.headers.get("authorization", ""))
    methods = _ROUTES.get(request.path)
    if methods is None and request.path.endswith("/") and request.path[:-1] in _ROUTES:
        target = f"http://{request.headers.get('host', 'localhost')}{request.path[:-1]}"
        raise errors.Refusal(307, b"", headers=(("location", target),))
    if methods is None:
        raise errors.detail(404, "Not Found")
    handler = methods.get(request.method)
    if handler is None:
        raise errors.detail(405, "Method Not Allowed", (("allow", ", ".join(methods)),))
    return handler


def _health(model: Model, _request: Request, reply: Reply) -> None:
    gevent.sleep(model.knobs.health_delay_ms / 1000)
    reply.whole(b"", status=model.knobs.health_status)


def _ping(_model: Model, _request: Request, reply: Reply) -> None:
    reply.whole(b"")


def _version(_model: Model, _request: Request, reply: Reply) -> None:
    reply.whole(b'{"version":"0.32.0"}')


def _load(model: Model, _request: Request, reply: Reply) -> None:
    reply.whole(b'{"server_load":%d}' % model.engine.open_calls)


def _metrics(model: Model, _request: Request, reply: Reply) -> None:
    reply.whole(model.gauges(), metrics.CONTENT_TYPE)


def _models(model: Model, _request: Request, reply: Reply) -> None:
    data = [_model_card(name, model.served.max_model_len) for name in model.served.models]
    reply.whole(orjson.dumps({"object": "list", "data": data}))


def _model_card(name: str, max_model_len: int) -> dict[str, Any]:
    now_s = int(time.time())
    permission = {
        "id": f"modelperm-{uuid.uuid4().hex[:16]}",
        "object": "model_permission",
        "created": now_s,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": now_s,
        "owned_by": "vllm",
        "root": f"/models/{name}",
        "parent": None,
        "max_model_len": max_model_len,
        "permission": [permission],
    }


def _tokenize(model: Model, request: Request, reply: Reply) -> None:
    body = _object(request)
    pieces = tokens.split(_tokenized_text(body))
    answer = {
        "count": len(pieces),
        "max_model_len": model.served.max_model_len,
        "tokens": [tokens.token_id(p) for p in pieces],
        "token_strs": [tokens.shown(p) for p in pieces] if body.get("return_token_strs") else None,
    }
    reply.whole(orjson.dumps(answer))


def _tokenized_text(body: Mapping[str, Any]) -> str:
    if "messages" in body:
        return tokens.chat_prompt(schema.checked(body)["messages"], body.get("tools") or ())
    return str(body.get("prompt", ""))


def _detokenize(_model: Model, request: Request, reply: Reply) -> None:
    ids = _object(request).get("tokens") or ()
    reply.whole(orjson.dumps({"prompt": tokens.decode(i for i in ids if isinstance(i, int))}))


def _show_knobs(model: Model, _request: Request, reply: Reply) -> None:
    reply.whole(orjson.dumps(model.knobs.to_dict()))


def _turn_knobs(model: Model, request: Request, reply: Reply) -> None:
    try:
        model.turn(model.knobs.turned(_object(request)))
    except KnobError as error:
        raise errors.bad_request(str(error)) from None
    _show_knobs(model, request, reply)


def _reset_knobs(model: Model, request: Request, reply: Reply) -> None:
    """Back to what the command line said."""
    model.turn(model.first_knobs)
    _show_knobs(model, request, reply)


def _show_requests(model: Model, _request: Request, reply: Reply) -> None:
    reply.whole(orjson.dumps([calls.record(call) for call in model.engine.calls()]))


def _forget_requests(model: Model, _request: Request, reply: Reply) -> None:
    model.engine.forget_calls()
    reply.whole(b"[]")


def _object(request: Request) -> dict[str, Any]:
    return schema.read_json(request.headers.get("content-type", ""), request.body)


_ROUTES: Final[Mapping[str, Mapping[str, Handler]]] = {
    "/v1/chat/completions": {"POST": calls.chat},
    "/v1/models": {"GET": _models},
    "/health": {"GET": _health},
    "/ping": {"GET": _ping, "POST": _ping},
    "/version": {"GET": _version},
    "/load": {"GET": _load},
    "/metrics": {"GET": _metrics},
    "/tokenize": {"POST": _tokenize},
    "/detokenize": {"POST": _detokenize},
    "/sim/knobs": {"GET": _show_knobs, "POST": _turn_knobs, "DELETE": _reset_knobs},
    "/sim/requests": {"GET": _show_requests, "DELETE": _forget_requests},
}
