"""The first call, ready to paste: for a shell, Python, JavaScript, Open WebUI and LangChain. key None: it is read from the
environment. Pure.
"""

import json
import shlex
from typing import Final

IMPORT_OS: Final = "import os\n"
IMPORT_OS_APART: Final = "import os\n\n"
ENVIRONMENT_SHELL: Final = '"$SEKISHO_API_KEY"'
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


def _literal(text: str) -> str:
    """`text` in quotes, as JSON, Python and JavaScript all write it."""
    return json.dumps(text, ensure_ascii=False)
