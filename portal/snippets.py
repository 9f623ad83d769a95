"""The first call, ready to paste: for a shell, Python and JavaScript. key None: it is read from the environment. Pure."""

import json
import shlex
from typing import Final

IMPORT_OS: Final = "import os\n"
ENVIRONMENT_PYTHON: Final = 'os.environ["SEKISHO_API_KEY"]'
ENVIRONMENT_JAVASCRIPT: Final = "process.env.SEKISHO_API_KEY"


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


def _literal(text: str) -> str:
    """`text` in quotes, as JSON, Python and JavaScript all write it."""
    return json.dumps(text, ensure_ascii=False)
