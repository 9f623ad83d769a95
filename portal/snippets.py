"""The first call, ready to paste: for a shell, Python, JavaScript, Open WebUI and LangChain. key None: it is read from the
environment. Pure.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any, Final

IMPORT_OS: Final = "import os\n"
IMPORT_OS_APART: Final = "import os\n\n"
ENVIRONMENT_SHELL: Final = '"$SEKISHO_API_KEY"'
ENVIRONMENT_PYTHON: Final = 'os.environ["SEKISHO_API_KEY"]'
ENVIRONMENT_JAVASCRIPT: Final = "process.env.SEKISHO_API_KEY"
# What the official client for Python takes by name; the rest goes through its extra_body.
NAMED_IN_PYTHON: Final = frozenset(
    (
        "model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed",
        "stop", "response_format", "tools", "tool_choice", "parallel_tool_calls", "n", "presence_penalty", "frequency_penalty",
        "logit_bias", "logprobs", "top_logprobs", "metadata", "store", "user", "reasoning_effort",
    )
)  # fmt: skip


def base_url(public_url: str) -> str:
    """What clients call `base_url`. public_url: where the gateway is reached from outside, without /v1."""
    return public_url.rstrip("/") + "/v1"


def curl(url: str, alias: str, greeting: str, *, key: str | None = None) -> str:
    body = f'{{\n    "model": {_literal(alias)},\n    "messages": [{{"role": "user", "content": {_literal(greeting)}}}]\n  }}'
    return (
        f"curl {shlex.quote(url + '/chat/completions')} \\\n"
        f'  -H "Authorization: Bearer {key or "$SEKISHO_API_KEY"}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(body)}"
    )


def openai_python(url: str, alias: str, greeting: str, *, key: str | None = None) -> str:
    return (
        f"{'' if key else IMPORT_OS}from openai import OpenAI\n"
        "\n"
        "client = OpenAI(\n"
        f"    base_url={_literal(url)},\n"
        f"    api_key={_literal(key) if key else ENVIRONMENT_PYTHON},\n"
        ")\n"
        "answer = client.chat.completions.create(\n"
        f"    model={_literal(alias)},\n"
        f'    messages=[{{"role": "user", "content": {_literal(greeting)}}}],\n'
        ")\n"
        "print(answer.choices[0].message.content)"
    )


def openai_javascript(url: str, alias: str, greeting: str, *, key: str | None = None) -> str:
    return (
        'import OpenAI from "openai";\n'
        "\n"
        "const client = new OpenAI({\n"
        f"  baseURL: {_literal(url)},\n"
        f"  apiKey: {_literal(key) if key else ENVIRONMENT_JAVASCRIPT},\n"
        "});\n"
        "const answer = await client.chat.completions.create({\n"
        f"  model: {_literal(alias)},\n"
        f'  messages: [{{ role: "user", content: {_literal(greeting)} }}],\n'
        "});\n"
        "console.log(answer.choices[0].message.content);"
    )


def open_webui(url: str, *, key: str | None = None) -> str:
    """Its own names of variables. It offers every alias the key may call, and keeps the connection once it is set."""
    return (
        f"export OPENAI_API_BASE_URL={shlex.quote(url)}\n"
        f"export OPENAI_API_KEY={shlex.quote(key) if key else ENVIRONMENT_SHELL}\n"
        "export ENABLE_OLLAMA_API=false\n"
        "open-webui serve"
    )


def langchain(url: str, alias: str, greeting: str, *, key: str | None = None) -> str:
    return (
        f"{'' if key else IMPORT_OS_APART}from langchain_openai import ChatOpenAI\n"
        "\n"
        "model = ChatOpenAI(\n"
        f"    base_url={_literal(url)},\n"
        f"    api_key={_literal(key) if key else ENVIRONMENT_PYTHON},\n"
        f"    model={_literal(alias)},\n"
        ")\n"
        f"print(model.invoke({_literal(greeting)}).content)"
    )


def every(url: str, alias: str, greeting: str, *, key: str | None = None) -> dict[str, str]:
    """All of them, by the names that templates/portal/_snippets.html has for them."""
    return {
        "curl": curl(url, alias, greeting, key=key),
        "openai_python": openai_python(url, alias, greeting, key=key),
        "openai_javascript": openai_javascript(url, alias, greeting, key=key),
        "open_webui": open_webui(url, key=key),
        "langchain": langchain(url, alias, greeting, key=key),
    }


def of_call(url: str, body: Mapping[str, Any]) -> dict[str, str]:
    """One whole call, as each of three programs makes it; by the names of `every`. The key is read from the environment."""
    return {"curl": _curl_of(url, body), "openai_python": _python_of(url, body), "openai_javascript": _javascript_of(url, body)}


def _curl_of(url: str, body: Mapping[str, Any]) -> str:
    streams = "--no-buffer " if body.get("stream") else ""
    return (
        f"curl {streams}{shlex.quote(url + '/chat/completions')} \\\n"
        '  -H "Authorization: Bearer $SEKISHO_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(_json(body))}"
    )


def _python_of(url: str, body: Mapping[str, Any]) -> str:
    named = {name: value for name, value in body.items() if name in NAMED_IN_PYTHON}
    rest = {name: value for name, value in body.items() if name not in NAMED_IN_PYTHON}
    if rest:
        named["extra_body"] = rest
    arguments = "".join(f"    {name}={_python(value, 1)},\n" for name, value in named.items())
    end = (
        'for chunk in answer:\n    if chunk.choices:\n        print(chunk.choices[0].delta.content or "", end="", flush=True)'
        if body.get("stream")
        else "print(answer.choices[0].message.content)"
    )
    return (
        f"{IMPORT_OS}from openai import OpenAI\n"
        "\n"
        "client = OpenAI(\n"
        f"    base_url={_literal(url)},\n"
        f"    api_key={ENVIRONMENT_PYTHON},\n"
        ")\n"
        f"answer = client.chat.completions.create(\n{arguments})\n"
        f"{end}"
    )


def _javascript_of(url: str, body: Mapping[str, Any]) -> str:
    end = (
        'for await (const chunk of answer) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");'
        if body.get("stream")
        else "console.log(answer.choices[0].message.content);"
    )
    return (
        'import OpenAI from "openai";\n'
        "\n"
        "const client = new OpenAI({\n"
        f"  baseURL: {_literal(url)},\n"
        f"  apiKey: {ENVIRONMENT_JAVASCRIPT},\n"
        "});\n"
        f"const answer = await client.chat.completions.create({_json(body)});\n"
        f"{end}"
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _python(value: Any, depth: int = 0) -> str:
    """What JSON can hold, as Python writes it, with the black formatter's indents."""
    inner, outer = "    " * (depth + 1), "    " * depth
    if isinstance(value, Mapping) and value:
        return "{\n" + "".join(f"{inner}{_literal(str(k))}: {_python(v, depth + 1)},\n" for k, v in value.items()) + outer + "}"
    if isinstance(value, list | tuple) and value:
        return "[\n" + "".join(f"{inner}{_python(item, depth + 1)},\n" for item in value) + outer + "]"
    if value is None or isinstance(value, bool):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def _literal(text: str) -> str:
    """`text` in quotes, as JSON, Python and JavaScript all write it."""
    return json.dumps(text, ensure_ascii=False)
