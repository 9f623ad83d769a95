"""The smallest JSON value that meets a JSON schema, as guided decoding would produce one. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.simulator.errors import bad_request

_DEPTH_MAX: Final = 32
_TYPES: Final = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})


def sample(schema: object, root: object = None, depth: int = 0) -> Any:
    """A value for `schema`. root: where `$ref` points into. Raises Refusal for a type that is none, as vLLM's grammar does."""
    if not isinstance(schema, Mapping) or depth > _DEPTH_MAX:
        return None if depth > _DEPTH_MAX else {}
    root = schema if root is None else root
    if "$ref" in schema:
        return sample(_resolve(str(schema["$ref"]), root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return sample(schema[several][0], root, depth + 1)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind not in _TYPES:
        raise bad_request(f"Grammar error: Invalid type: {kind}")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: sample(properties.get(name, {}), root, depth + 1) for name in schema.get("required", properties)}
    if kind == "array":
        return [sample(schema.get("items", {}), root, depth + 1)] * schema.get("minItems", 0)
    return _scalar(str(kind), schema)


def _scalar(kind: str, schema: Mapping[str, Any]) -> Any:
    if kind == "string":
        return "string".ljust(schema.get("minLength", 0), "g")[: schema.get("maxLength")]
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    most = schema.get("maximum", schema.get("exclusiveMaximum", least + 1) - 1)
    return min(least, most)


def _resolve(pointer: str, root: object) -> object:
    """`#/$defs/Name` in `root`; {} when it points nowhere."""
    found: Any = root
    for step in pointer.removeprefix("#").strip("/").split("/"):
        found = found.get(step, {}) if isinstance(found, Mapping) and step else found
    return found
