"""The bound of a prompt is hardly ever below the truth, and near it for ordinary text, whatever the language."""

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.usage import prompts
from tests.usage.prompts import JAPANESE_AWARE, WESTERN, Asked, Tokenizer
from usage.estimates import (
    HIDDEN_TOKENS,
    BoundLearner,
    Prompt,
    measure,
)

TOKENIZERS = pytest.mark.parametrize("tokenizer", [WESTERN, JAPANESE_AWARE], ids=["western", "japanese-aware"])
ORDINARY = ("english", "japanese", "mixed", "code")


def measured(asked: Asked) -> Prompt:
    return measure(asked.body, messages=len(asked.messages))


@cache
def traffic(tokenizer: Tokenizer, count: int, seed: int) -> list[tuple[Prompt, int]]:
    """Prompts as they come, and what the backend counts."""
    dice = random.Random(seed)
    return [(measured(asked), tokenizer.count(asked.messages)) for asked in (prompts.ask(dice) for _ in range(count))]


def taught(tokenizer: Tokenizer) -> BoundLearner:
    learner = BoundLearner()
    for prompt, tokens in traffic(tokenizer, 4000, seed=1)[:1000]:
        learner.note(prompt, tokens)
    return learner


@TOKENIZERS
def test_after_a_thousand_prompts_the_bound_holds_for_999_of_1000(tokenizer: Tokenizer) -> None:
    learner = taught(tokenizer)
    below = 0
    for prompt, tokens in traffic(tokenizer, 4000, seed=1)[1000:]:
        below += learner.upper_bound_tokens(prompt) < tokens
        learner.note(prompt, tokens)
    assert below <= 3


@TOKENIZERS
@pytest.mark.parametrize("kind", ORDINARY)
@pytest.mark.parametrize("words", [200, 3000])
def test_the_bound_of_ordinary_text_is_within_twice_the_truth(tokenizer: Tokenizer, kind: str, words: int) -> None:
    learner, dice = taught(tokenizer), random.Random(2)
    for _ in range(50):
        asked = prompts.ask(dice, kind, words=words)
        truth = tokenizer.count(asked.messages)
        assert truth <= learner.upper_bound_tokens(measured(asked)) <= 2 * truth


@TOKENIZERS
@pytest.mark.parametrize("kind", ORDINARY)
def test_the_realistic_figure_is_near_the_truth(tokenizer: Tokenizer, kind: str) -> None:
    learner, dice = taught(tokenizer), random.Random(4)
    for _ in range(50):
        asked = prompts.ask(dice, kind, words=500)
        truth = tokenizer.count(asked.messages)
        assert truth / 1.6 <= learner.realistic_tokens(measured(asked)) <= truth * 1.6


@TOKENIZERS
def test_before_anything_is_learned_the_bound_is_certain(tokenizer: Tokenizer) -> None:
    dice = random.Random(5)
    for _ in range(300):
        asked = prompts.ask(dice)
        prompt = measured(asked)
        assert BoundLearner().upper_bound_tokens(prompt) == len(asked.body) + HIDDEN_TOKENS >= tokenizer.count(asked.messages)


def test_a_blob_teaches_nothing_about_prose() -> None:
    learner, dice = taught(WESTERN), random.Random(7)
    prose = measured(prompts.ask(dice, "english", words=1000))
    before = learner.upper_bound_tokens(prose)
    for _ in range(500):
        asked = prompts.ask(dice, "base64", words=1000)
        learner.note(measured(asked), len(asked.body))
    assert learner.upper_bound_tokens(prose) == before


def test_a_worse_ratio_is_followed_at_once_and_forgotten_slowly() -> None:
    learner, dice = taught(WESTERN), random.Random(9)
    asked = prompts.ask(dice, "english", words=1000)
    prompt, truth = measured(asked), WESTERN.count(asked.messages)
    usual = learner.upper_bound_tokens(prompt)
    learner.note(prompt, 2 * usual)
    assert learner.upper_bound_tokens(prompt) >= 2 * usual
    for _ in range(1500):
        learner.note(prompt, truth)
    assert learner.upper_bound_tokens(prompt) >= 2 * usual
    for _ in range(4096):
        learner.note(prompt, truth)
    assert learner.upper_bound_tokens(prompt) < usual


def test_a_template_with_a_system_prompt_of_its_own_is_learned() -> None:
    tokenizer = Tokenizer(kana=0.9, kanji=1.3, digits=3, template=900)
    learner, dice = BoundLearner(), random.Random(10)
    for _ in range(1000):
        asked = prompts.ask(dice, "japanese", words=20)
        learner.note(measured(asked), tokenizer.count(asked.messages))
    asked = prompts.ask(dice, "japanese", words=20)
    truth = tokenizer.count(asked.messages)
    assert truth <= learner.upper_bound_tokens(measured(asked)) <= 2 * truth


def test_images_count_by_number_not_by_bytes() -> None:
    image = b"A" * 400_000
    body = b'{"model":"general","messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},' + image + b"]}]}"
    prompt = measure(body, messages=1, media=1, media_bytes=len(image))
    assert prompt.text_bytes == len(body) - len(image)
    learner = BoundLearner()
    assert learner.upper_bound_tokens(prompt) < 20_000
    for _ in range(1000):
        learner.note(prompt, 1500)
    assert 1500 < learner.upper_bound_tokens(prompt) < 1700
    text = measure(b'{"messages":[]}', messages=1)
    assert learner.upper_bound_tokens(text) == text.certain_tokens + HIDDEN_TOKENS, "the template hides no image"


def test_counts_that_are_none_teach_nothing() -> None:
    learner, prompt = BoundLearner(), measure(b"{}", messages=1)
    for _ in range(100):
        learner.note(prompt, 0)
    assert learner.upper_bound_tokens(prompt) == prompt.certain_tokens + HIDDEN_TOKENS


@given(st.text())
@settings(deadline=None)
def test_every_byte_is_measured_once(text: str) -> None:
    body = text.encode(errors="ignore")
    prompt = measure(body, messages=0)
    assert prompt.text_bytes == len(body)
    assert prompt.non_ascii_bytes == sum(byte > 127 for byte in body)


@given(st.builds(Prompt, *[st.integers(0, 10**7)] * 5), st.integers(1, 10**8))
@settings(deadline=None)
def test_a_bound_is_whole_positive_and_above_the_likely_figure(prompt: Prompt, tokens: int) -> None:
    learner = BoundLearner()
    for _ in range(30):
        assert 0 < learner.realistic_tokens(prompt) <= learner.upper_bound_tokens(prompt)
        learner.note(prompt, tokens)
    assert prompt.reference > 0
