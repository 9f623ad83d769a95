"""How many tokens a prompt is, before anybody has counted: an upper bound to reserve, and a likely figure. Pure.

Bytes are of the body as it goes to the backend, in UTF-8; a client's `\\u3042` would be six bytes of ASCII. Two counts
tell prompts apart at some nanoseconds a byte: of spaces, of which prose and code have many and base64 none, and of all
that is not ASCII, of which Japanese has three bytes and 0.7 to 1.3 tokens a character.
"""

from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal

Kind = Literal["words", "dense", "non_ascii", "media"]

# Tokens a byte of the usual vocabularies (128k to 256k entries); what a deployment's own one makes of it is learned.
WORDS_RATIO: Final = 0.25
DENSE_RATIO: Final = 0.6
NON_ASCII_RATIO: Final = 0.33
MEDIA_TOKENS: Final = 1000.0
TEMPLATE_TOKENS: Final = 12.0  # what the chat template adds to every prompt, and to every message
MESSAGE_TOKENS: Final = 5.0
# JSON around the text, which the template replaces by the above.
BODY_BYTES: Final = 80
MESSAGE_BYTES: Final = 30
WORD_BYTES: Final = 8  # a space vouches for as many bytes of words; prose has 6 to 7, code 4 to 6 (2026-11)

# The certain bound: no vocabulary makes more than one token of a byte; beside it stands what the request does not show.
HIDDEN_TOKENS: Final = 256
MEDIA_MAX_TOKENS: Final = 16_384

SHORT_TOKENS: Final = 256  # below it prompts are template for a large part: their ratio is another
LEARNED_FROM: Final = 20  # samples of a class, until which the certain bound holds
WINDOW: Final = 2048  # the largest ratio is of the last one to two windows of samples
MARGIN: Final = 0.1
YOUNG_MARGIN: Final = 20.0  # divided by the number of samples
MEAN_WEIGHT: Final = 0.01

_ASCII: Final = bytes(range(128))


@dataclass(slots=True)
class Prompt:
    """What is quickly known of a request: bytes by kind, messages, and images or sounds (whose bytes are not counted).

    reference: see reference_tokens. kind: of the text that weighs most. Nobody changes it; not frozen, as each call makes one.
    """

    ascii_bytes: int
    spaces: int
    non_ascii_bytes: int
    messages: int
    media: int = 0
    # Asked for five times a call: reckoned once.
    reference: float = field(init=False, repr=False, compare=False)
    kind: Kind = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words_bytes = min(self.ascii_bytes, WORD_BYTES * self.spaces)
        dense_bytes = self.ascii_bytes - words_bytes - BODY_BYTES - MESSAGE_BYTES * self.messages
        words, dense = WORDS_RATIO * words_bytes, DENSE_RATIO * dense_bytes if dense_bytes > 0 else 0.0
        non_ascii, media = NON_ASCII_RATIO * self.non_ascii_bytes, MEDIA_TOKENS * self.media
        self.reference = words + dense + non_ascii + media + TEMPLATE_TOKENS + MESSAGE_TOKENS * self.messages
        if non_ascii or media:
            kinds: dict[Kind, float] = {"words": words, "dense": dense, "non_ascii": non_ascii, "media": media}
            self.kind = max(kinds, key=kinds.__getitem__)
        else:
            self.kind = "words" if words >= dense else "dense"

    @property
    def text_bytes(self) -> int:
        return self.ascii_bytes + self.non_ascii_bytes


def measure(body: bytes, *, messages: int, media: int = 0, media_bytes: int = 0) -> Prompt:
    """Measure a body without spaces between its JSON tokens. media_bytes: of its images and sounds, as in the body."""
    non_ascii = 0 if body.isascii() else len(body.translate(None, _ASCII))
    return Prompt(max(0, len(body) - non_ascii - media_bytes), body.count(b" "), non_ascii, messages, media)


def reference_tokens(prompt: Prompt) -> float:
    """The figure that ratios refer to: about right for most vocabularies, and the same for ever."""
    return prompt.reference


def upper_bound_tokens(prompt: Prompt, ratio: float) -> int:
    """No more than this where no prompt of its class exceeds `ratio` times the reference."""
    return ceil(reference_tokens(prompt) * ratio)


def realistic_tokens(prompt: Prompt, ratio: float = 1.0) -> int:
    """The likely number. ratio: the mean one of its class."""
    return round(reference_tokens(prompt) * ratio)


def certain_bound_tokens(prompt: Prompt, hidden_tokens: int = HIDDEN_TOKENS) -> int:
    """What it cannot exceed, whatever the vocabulary. hidden_tokens: what the template adds by itself."""
    return prompt.text_bytes + hidden_tokens + prompt.media * MEDIA_MAX_TOKENS


@dataclass(slots=True)
class _Largest:
    """The largest of the last WINDOW samples or more, up to twice as many."""

    count: int = 0
    running: float = 0.0
    before: float = 0.0

    def note(self, value: float) -> None:
        if self.count and self.count % WINDOW == 0:
            self.before, self.running = self.running, 0.0
        self.count += 1
        self.running = max(self.running, value)

    def safe(self) -> float:
        """A new largest of n samples comes once in n: within 0.1 % from 1,000 on, and the margin makes it rarer still."""
        return max(self.running, self.before) * (1 + MARGIN + YOUNG_MARGIN / self.count)


@dataclass(slots=True)
class _Class:
    """What prompts of a class were: times their reference, which tells of text, and beyond it, which tells of templates."""

    times: _Largest = field(default_factory=_Largest)
    beyond: _Largest = field(default_factory=_Largest)
    mean: float = 1.0

    def note(self, tokens: int, reference: float) -> None:
        self.times.note(tokens / reference)
        self.beyond.note(tokens - reference)
        self.mean += (tokens / reference - self.mean) * max(MEAN_WEIGHT, 1 / self.times.count)

    def upper_bound_tokens(self, prompt: Prompt) -> int:
        """By `times`; where a short prompt's template weighs more than its text, by `beyond`."""
        reference = prompt.reference
        bound = ceil(reference * self.times.safe())
        if reference >= SHORT_TOKENS:
            return bound
        return min(bound, ceil(reference * (1 + MARGIN)) + ceil(self.beyond.safe()))


@dataclass(slots=True)
class BoundLearner:
    """Of one deployment: learns from what its backends report. Some dozen numbers; one a worker, which each learns anew.

    By class: the kind of text that weighs most, and whether the prompt is short. So a base64 blob teaches nothing about
    prose, nor a greeting about a book.
    """

    _classes: dict[tuple[Kind, bool], _Class] = field(default_factory=dict)
    _hidden_tokens: int = HIDDEN_TOKENS

    def note(self, prompt: Prompt, prompt_tokens: int) -> None:
        """The backend counted this prompt. Not for counts that are estimates, nor for prompts it truncated."""
        if prompt_tokens <= 0:
            return
        self._classes.setdefault(_class_of(prompt), _Class()).note(prompt_tokens, reference_tokens(prompt))
        if not prompt.media:
            self._hidden_tokens = max(self._hidden_tokens, prompt_tokens - prompt.text_bytes)

    def estimate(self, prompt: Prompt) -> tuple[int, int]:
        """realistic_tokens and upper_bound_tokens, which a call needs both."""
        certain = prompt.ascii_bytes + prompt.non_ascii_bytes + self._hidden_tokens + prompt.media * MEDIA_MAX_TOKENS
        known = self._classes.get(_class_of(prompt))
        if known is None:
            return min(round(prompt.reference), certain), certain
        bound = certain if known.times.count < LEARNED_FROM else min(certain, known.upper_bound_tokens(prompt))
        return min(round(prompt.reference * known.mean), bound), bound

    def upper_bound_tokens(self, prompt: Prompt) -> int:
        """What to reserve: exceeded by fewer than one prompt in a thousand once 1,000 of its class were counted."""
        return self.estimate(prompt)[1]

    def realistic_tokens(self, prompt: Prompt) -> int:
        return self.estimate(prompt)[0]


def _class_of(prompt: Prompt) -> tuple[Kind, bool]:
    """The kind of text that weighs most, and whether it is short."""
    return prompt.kind, prompt.reference < SHORT_TOKENS
