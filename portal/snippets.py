"""The first call, ready to paste: for a shell and for Python. Pure."""

import json
import shlex


def base_url(public_url: str) -> str:
    """What clients call `base_url`. public_url: where the gateway is reached from outside, without /v1."""
    return public_url.rstrip("/") + "/v1"


def curl(url: str, alias: str, greeting: str) -> str:
    body = f'{{\n    "model": {_literal(alias)},\n    "messages": [{{"role": "user", "content": {_literal(greeting)}}}]\n  }}'
    return (
        f"curl {shlex.quote(url + '/chat/completions')} \\\n"
        '  -H "Authorization: Bearer $SEKISHO_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(body)}"
    )


def openai_python(url: str, alias: str, greeting: str) -> str:
    return (
        "import os\n"
        "from openai import OpenAI\n"
        "\n"
        "client = OpenAI(\n"
        f"    base_url={_literal(url)},\n"
        '    api_key=os.environ["SEKISHO_API_KEY"],\n'
        ")\n"
        "answer = client.chat.completions.create(\n"
        f"    model={_literal(alias)},\n"
        f'    messages=[{{"role": "user", "content": {_literal(greeting)}}}],\n'
        ")\n"
        "print(answer.choices[0].message.content)"
    )


def _literal(text: str) -> str:
    """`text` in quotes, as JSON and Python both write it."""
    return json.dumps(text, ensure_ascii=False)
