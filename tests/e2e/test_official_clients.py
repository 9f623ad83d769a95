"""The official openai client, its newest version in this process and its oldest 1.x in one of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from accounts.models import Tenant
from tests.e2e.conftest import Stand, await_configuration

OLDEST = Path(__file__).parents[2] / ".venv-openai-1"
PROGRAMS = Path(__file__).parent / "programs"


def client(stand: Stand, secret: str | None = None) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stand.gateway.url}/v1", api_key=secret or stand.secret, max_retries=0)


def set_dialect(stand: Stand, dialect: str) -> None:
    Tenant.objects.get(pk=stand.acme.pk)
    stand.acme.error_dialect = dialect
    stand.acme.save()
    marker = (lambda body: "error" in body) if dialect == "openai" else (lambda body: "detail" in body)
    other = (
        (lambda body: "detail" not in body) if dialect == "openai" else (lambda body: dialect == "both" or "error" not in body)
    )

    def seen() -> bool:
        body = stand.get("/v1/models/nothing").json()
        return marker(body) and other(body)

    for _ in stand.gateway.each_worker():
        stand.until(seen, f"the dialect {dialect} did not arrive")


def test_plain(stand: Stand) -> None:
    completion = client(stand).chat.completions.create(
        model="general",
        messages=[{"role": "user", "content": "こんにちは、自己紹介をお願いします。"}],
        temperature=0.7,
        max_tokens=100,
    )
    assert completion.model == "general"
    assert completion.id.startswith("chatcmpl-")
    assert completion.choices[0].message.content
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion._request_id == completion.id.removeprefix("chatcmpl-")


def test_streamed_text_is_the_plain_text(stand: Stand) -> None:
    messages = [{"role": "user", "content": "Tell me about gates."}]
    plain = client(stand).chat.completions.create(model="general", messages=messages, temperature=0, max_tokens=50)  # type: ignore[arg-type]
    chunks = list(
        client(stand).chat.completions.create(model="general", messages=messages, temperature=0, max_tokens=50, stream=True)
    )  # type: ignore[arg-type]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain.choices[0].message.content
    assert {c.model for c in chunks} == {"general"}
    assert len({c.id for c in chunks}) == 1
    assert all(c.usage is None for c in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_usage_is_shown_to_whom_asks(stand: Stand) -> None:
    chunks = list(
        client(stand).chat.completions.create(
            model="general", messages=[{"role": "user", "content": "Hi"}], stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert all(c.usage is None for c in chunks[:-1])


def test_the_history_of_a_tool_call_is_taken(stand: Stand) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "東京"}'}}
    completion = client(stand).chat.completions.create(
        model="general",
        messages=[
            {"role": "developer", "content": "You are terse."},
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
        max_tokens=20,
    )  # type: ignore[call-overload]
    assert completion.choices[0].message.content


@pytest.mark.skipif("SEKISHO_TEST_VLLM_URL" in os.environ, reason="a model of random weights calls no tool")
def test_tools_echo(stand: Stand) -> None:
    tools = [
        {
            "type": "function",
            "function": {"name": "get_weather", "strict": True, "parameters": {"type": "object", "properties": {}}},
        }
    ]
    messages = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "Weather?"},
    ]
    first = client(stand).chat.completions.create(
        model="general", messages=messages, tools=tools, tool_choice="required", max_tokens=200
    )  # type: ignore[call-overload]
    call = first.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    messages += [{"role": "user", "content": "Thanks"}]
    second = client(stand).chat.completions.create(model="general", messages=messages)  # type: ignore[call-overload]
    assert second.choices[0].message.content


def test_models_lists_what_the_key_may_use(stand: Stand) -> None:
    (model,) = client(stand).models.list().data
    assert (model.id, model.owned_by) == ("general", "sekisho")
    assert client(stand).models.retrieve("general").id == "general"


@pytest.mark.parametrize("dialect", ["openai", "detail", "both"])
def test_errors_are_typed_exceptions_in_each_dialect(stand: Stand, dialect: str) -> None:
    _key, models_only = stand.issue(name="models-only", scopes=["models"])
    set_dialect(stand, dialect)
    await_configuration(stand)
    hello = [{"role": "user", "content": "Hi"}]
    stand.until(lambda: stand.get("/v1/models", secret=models_only).status_code == 200, "the key did not arrive")
    with pytest.raises(openai.AuthenticationError, match="Invalid API key"):
        client(stand, "sk-wrong").chat.completions.create(model="general", messages=hello)  # type: ignore[arg-type]
    with pytest.raises(openai.PermissionDeniedError, match=r"not authorized to invoke chat completions|403"):
        client(stand, models_only).chat.completions.create(model="general", messages=hello)  # type: ignore[arg-type]
    unknown = openai.BadRequestError if dialect == "detail" else openai.NotFoundError
    with pytest.raises(unknown):
        client(stand).chat.completions.create(model="nothing", messages=hello)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError) as caught:
        client(stand).chat.completions.create(model="general", messages=hello, temperature=3)  # type: ignore[arg-type]
    if dialect != "detail":
        assert (caught.value.code, caught.value.param) == ("invalid_request", "temperature")
    stand.vllm.knobs(fail_rate=1, status=500)
    with pytest.raises(openai.InternalServerError, match=r"temporarily unavailable|502"):
        client(stand).chat.completions.create(model="general", messages=hello)  # type: ignore[arg-type]


def test_a_stream_that_breaks_raises_with_our_code(stand: Stand) -> None:
    stand.vllm.knobs(cut_after=3)
    stream = client(stand).chat.completions.create(model="general", messages=[{"role": "user", "content": "Hi"}], stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "upstream_unavailable"
    assert "general" in caught.value.message


@pytest.mark.parametrize("program", sorted(p.name for p in PROGRAMS.glob("*.py")))
def test_the_documented_programs_run_as_printed_with_the_oldest_client(stand: Stand, program: str) -> None:
    """Only base URL, key and model are changed; the programs are mdx-maas-chat's own examples."""
    if not OLDEST.exists():
        pytest.skip("run deploy/test: it installs the oldest openai client into .venv-openai-1")
    run_program(stand, OLDEST / "bin/python", PROGRAMS / program)


@pytest.mark.parametrize("program", sorted(p.name for p in PROGRAMS.glob("*.py")))
def test_the_documented_programs_run_as_printed_with_the_newest_client(stand: Stand, program: str) -> None:
    run_program(stand, Path(sys.executable), PROGRAMS / program)


def run_program(stand: Stand, python: Path, program: Path) -> None:
    source = program.read_text()
    for printed, ours in (
        ("https://api.maas.mdx1.jp/v1", f"{stand.gateway.url}/v1"),
        ("your-api-key-here", stand.secret),
        ("openai/gpt-oss-20b", "general"),
        ("llm-jp/llm-jp-3.1-13b-instruct4", "general"),
    ):
        source = source.replace(printed, ours)
    environment = {"PATH": os.environ["PATH"], "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([python, "-c", source], capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    expected = json.loads((program.with_suffix(".json")).read_text())
    for fragment in expected["prints"]:
        assert fragment in done.stdout
    assert len(done.stdout.strip()) >= expected["at_least_characters"]
