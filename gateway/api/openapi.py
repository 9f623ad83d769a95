"""The OpenAPI 3.1 description of /v1, rendered from the table of fields and the tree of errors. Pure.

A field's null stands for its absence, so every optional field admits it here too.
"""

from typing import Any, Final, get_args

from gateway import exceptions
from gateway.api.fields import FIELDS, REQUIRED, Field
from gateway.exceptions import GatewayError
from gateway.policy.rules import ACTIONS, HOLDERS, SURFACES
from usage.events import Outcome, UsageSource
from usage.limits import NAMES, SUBJECTS
from usage.spans import SPANS

GROUPS: Final = ("alias", "key", "status")  # of GET /v1/usage

_CALL_ERRORS: Final[tuple[type[GatewayError], ...]] = (
    exceptions.InvalidRequest,
    exceptions.ContextLengthExceeded,
    exceptions.InvalidApiKey,
    exceptions.InsufficientScope,
    exceptions.ContentBlocked,
    exceptions.ModelNotFound,
    exceptions.RequestTooLarge,
    exceptions.UnsupportedMediaType,
    exceptions.InternalError,
    exceptions.UpstreamUnavailable,
    exceptions.Overloaded,
    exceptions.UpstreamTimeout,
)
_LIST_ERRORS: Final[tuple[type[GatewayError], ...]] = (
    exceptions.InvalidApiKey,
    exceptions.InsufficientScope,
    exceptions.InternalError,
    exceptions.Overloaded,
)


def document() -> dict[str, Any]:
    """The whole description, as a new dictionary ready to be written as JSON. Its paths are relative to where /v1 stands."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sekisho", "version": "1", "description": "An OpenAI-compatible gateway to models of your own."},
        "security": [{"key": []}],
        "paths": {
            "/v1/chat/completions": {"post": _chat()},
            "/v1/models": {"get": _models()},
            "/v1/models/{id}": {"get": _model()},
            "/v1/usage": {"get": _usage()},
            "/v1/limits": {"get": _limits()},
            "/v1/requests/{id}": {"get": _request()},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "ChatCompletionRequest": _request_schema(),
                "ChatCompletion": _COMPLETION,
                "ChatCompletionChunk": _CHUNK,
                "Usage": _USAGE,
                "Model": _MODEL,
                "ModelList": _MODEL_LIST,
                "UsageReport": _USAGE_REPORT,
                "LimitList": _LIMIT_LIST,
                "PastRequest": _PAST_REQUEST,
                "Error": _ERROR,
            },
        },
    }


# ---- operations


def _chat() -> dict[str, Any]:
    answer = {
        "application/json": {"schema": _ref("ChatCompletion")},
        "text/event-stream": {"schema": _ref("ChatCompletionChunk")},
    }
    return {
        "operationId": "createChatCompletion",
        "summary": "Create a chat completion",
        "description": "With stream: true, server-sent events, each one chunk; the last is `data: [DONE]`.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("ChatCompletionRequest")}}},
        "responses": {"200": {"description": "The completion.", "content": answer}, **_error_responses(_CALL_ERRORS)},
    }


def _models() -> dict[str, Any]:
    answer = {"application/json": {"schema": _ref("ModelList")}}
    return {
        "operationId": "listModels",
        "summary": "List the aliases this key may use",
        "responses": {"200": {"description": "The aliases.", "content": answer}, **_error_responses(_LIST_ERRORS)},
    }


def _model() -> dict[str, Any]:
    answer = {"application/json": {"schema": _ref("Model")}}
    errors = (*_LIST_ERRORS, exceptions.ModelNotFound)
    return {
        "operationId": "retrieveModel",
        "summary": "Describe one alias",
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {"200": {"description": "The alias.", "content": answer}, **_error_responses(errors)},
    }


def _usage() -> dict[str, Any]:
    choices = {
        "start": {"type": "string", "format": "date-time"},
        "end": {"type": "string", "format": "date-time"},
        "bucket": {"enum": list(SPANS), "default": "hour"},
        "group_by": {"type": "array", "items": {"enum": list(GROUPS)}},
    }
    parameters = [{"name": name, "in": "query", "schema": schema} for name, schema in choices.items()]
    parameters[-1] |= {"style": "form", "explode": False}
    answer = {"application/json": {"schema": _ref("UsageReport")}}
    return {
        "operationId": "reportUsage",
        "summary": "Sum up what this key has used; with the scope usage:tenant, what its tenant has",
        "description": "By default the last 24 hours by the hour. Buckets, and times without a zone, are in the tenant's.",
        "parameters": parameters,
        "responses": {
            "200": {"description": "Sums by bucket and group; buckets without a call are left out.", "content": answer},
            **_error_responses((exceptions.InvalidRequest, *_LIST_ERRORS)),
        },
    }


def _limits() -> dict[str, Any]:
    answer = {"application/json": {"schema": _ref("LimitList")}}
    return {
        "operationId": "listLimits",
        "summary": "List the limits on this key, its aliases and its tenant, as they stand",
        "responses": {"200": {"description": "The limits.", "content": answer}, **_error_responses(_LIST_ERRORS)},
    }


def _request() -> dict[str, Any]:
    answer = {"application/json": {"schema": _ref("PastRequest")}}
    errors = (*_LIST_ERRORS, exceptions.RequestNotFound)
    return {
        "operationId": "retrieveRequest",
        "summary": "Tell what happened to a call",
        "parameters": [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": "The x-request-id of its answer.",
                "schema": {"type": "string"},
            }
        ],
        "responses": {"200": {"description": "The call, once it has ended.", "content": answer}, **_error_responses(errors)},
    }


def _error_responses(errors: tuple[type[GatewayError], ...]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for error in sorted(errors, key=lambda error: error.status):
        response = responses.setdefault(str(error.status), {"description": "", "content": _error_content()})
        response["description"] = " ".join(filter(None, (response["description"], f"`{error.code}`")))
        response["content"]["application/json"]["examples"][error.code] = {"value": _error_example(error)}
    return responses


def _error_content() -> dict[str, Any]:
    return {"application/json": {"schema": _ref("Error"), "examples": {}}}


def _error_example(error: type[GatewayError]) -> dict[str, Any]:
    message = error.sentence("general") if issubclass(error, exceptions.AliasError) else error.default_message
    return {"error": {"type": error.type, "message": message, "code": error.code, "param": None}}


# ---- schemas


def _request_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(REQUIRED),
        "properties": {row.name: _property(row) for row in FIELDS.values()},
        "additionalProperties": True,
    }


def _property(row: Field) -> dict[str, Any]:
    schema = dict(row.check.schema) if row.required else {"anyOf": [row.check.schema, {"type": "null"}]}
    return {**schema, "description": f"{row.description} ({row.kind})"}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: dict[str, Any], *, required: tuple[str, ...] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties if required is None else required)}


_STRING: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_NULLABLE_STRING: Final = {"type": ["string", "null"]}

_ERROR: Final = _object(
    {
        "error": _object(
            {
                "type": _STRING,
                "message": _STRING,
                "code": _STRING,
                "param": _NULLABLE_STRING,
                "details": {"type": "array", "items": _object({"param": _STRING, "message": _STRING})},
            },
            required=("type", "message", "code"),
        )
    }
)
_USAGE: Final = _object({"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT})
_MESSAGE: Final = _object(
    {
        "role": _STRING,
        "content": _NULLABLE_STRING,
        "reasoning": _NULLABLE_STRING,
        "tool_calls": {"type": "array", "items": {"type": "object"}},
    },
    required=(),
)


def _completion(kind: str, member: str) -> dict[str, Any]:
    choice = _object({"index": _COUNT, member: _MESSAGE, "finish_reason": _NULLABLE_STRING})
    return _object(
        {
            "id": _STRING,
            "object": {"const": kind},
            "created": _COUNT,
            "model": _STRING,
            "choices": {"type": "array", "items": choice},
            "usage": _ref("Usage"),
        },
        required=("id", "object", "created", "model", "choices"),
    )


_COMPLETION: Final = _completion("chat.completion", "message")
_CHUNK: Final = _completion("chat.completion.chunk", "delta")
_MODEL: Final = _object(
    {
        "id": _STRING,
        "object": {"const": "model"},
        "created": _COUNT,
        "owned_by": _STRING,
        "display_name": _STRING,
        "description": _STRING,
    }
)
_MODEL_LIST: Final = _object({"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}})
_MONEY: Final = {"type": "string", "description": "Units of the installation's currency, in decimal digits."}
_SUMS: Final = {
    **dict.fromkeys(
        ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens", "errors", "refused", "blocked"),
        _COUNT,
    ),
    "cost": _MONEY,
}
_TIME: Final = {"type": "string", "format": "date-time"}
_GROUPED: Final = {"alias": _STRING, "key": _STRING, "key_name": _NULLABLE_STRING, "status": _COUNT}
_USAGE_REPORT: Final = _object(
    {
        "object": {"const": "usage"},
        "time_zone": _STRING,
        "data": {
            "type": "array",
            "items": _object({"start": _TIME, "end": _TIME, **_GROUPED, **_SUMS}, required=("start", "end", *_SUMS)),
        },
        "total": _object(_SUMS),
    }
)
_AMOUNT: Final = {"anyOf": [_COUNT, _MONEY]}
_LIMIT: Final = {
    "subject": {"enum": list(SUBJECTS)},
    "name": _STRING,
    "limit": {"enum": list(NAMES)},
    "max": _AMOUNT,
    "used": _AMOUNT,
    "reserved": _AMOUNT,
    "mode": {"enum": ["enforce", "shadow"]},
}
_LIMIT_LIST: Final = _object(
    {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": _object({**_LIMIT, "remaining": _AMOUNT, "reset_s": {"type": "number", "minimum": 0}}),
        },
    }
)
_PLACE: Final = {"type": ["integer", "null"], "description": "Characters into the texts of the surface."}
_DECISION: Final = _object(
    {
        "policy": _STRING,
        "holder": {"enum": list(HOLDERS), "description": "Whose policy it was; older records do not tell."},
        "version": _COUNT,
        "rule": _STRING,
        "kind": _STRING,
        "action": {"enum": list(ACTIONS)},
        "surface": {"enum": list(SURFACES)},
        "start": _PLACE,
        "end": _PLACE,
        "is_failure": {"type": "boolean", "description": "A judge gave no answer in time."},
    },
    required=("policy", "version", "rule", "kind", "action", "surface", "start", "end"),
)
_PAST_REQUEST: Final = _object(
    {
        "object": {"const": "request"},
        "id": _STRING,
        "created": _COUNT,
        "alias": _STRING,
        "status": _COUNT,
        "outcome": {"enum": list(get_args(Outcome))},
        "error_code": _NULLABLE_STRING,
        "stream": {"type": "boolean"},
        "usage": _object(
            {
                **dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens"), _COUNT),
                "source": {"enum": list(get_args(UsageSource))},
            }
        ),
        "cost": _MONEY,
        "queue_ms": _COUNT,
        "first_token_ms": {"type": ["integer", "null"]},
        "duration_ms": _COUNT,
        "limits": {"type": "array", "items": _object(_LIMIT)},
        "policy": {"type": "array", "items": _DECISION},
        "policy_more": _COUNT,
    }
)
