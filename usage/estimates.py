"""How many tokens a prompt is, before anybody has counted: an upper bound to reserve, and a likely figure. Pure.

Bytes are of the body as it goes to the backend, in UTF-8; a client's `\\u3042` would be six bytes of ASCII. Two counts
tell prompts apart at some nanoseconds a byte: of spaces, of which prose and code have many and base64 none, and of all
that is not ASCII, of which Japanese has three bytes and 0.7 to 1.3 tokens a character.
"""

from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal

Kind = Literal["words", "dense", "non_ascii", "media"]
_ClassName = tuple[Kind, bool]

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


@dataclass(slots=True, init=False)
class Prompt:
    """What is quickly known of a request: bytes by kind, messages, and images or sounds (whose bytes are not counted).

    reference: the figure that ratios refer to, tokens: about right for most vocabularies, and the same for ever.
    certain_tokens: what it cannot exceed, whatever the vocabulary, beside what the template adds by itself. its_class: the
    kind of text that weighs most, and whether it is short. Nobody changes it; not frozen, as each call makes one.
    """

    ascii_bytes: int
    spaces: int
    non_ascii_bytes: int
    messages: int
    media: int
    # Asked for several times a call: reckoned once.
    text_bytes: int = field(repr=False, compare=False)
    certain_tokens: int = field(repr=False, compare=False)
    reference: float = field(repr=False, compare=False)
    its_class: _ClassName = field(repr=False, compare=False)

    def __init__(self, ascii_bytes: int, spaces: int, non_ascii_bytes: int, messages: int, media: int = 0) -> None:
        self.ascii_bytes = ascii_bytes
        self.spaces = spaces
        self.non_ascii_bytes = non_ascii_bytes
        self.messages = messages
        self.media = media
        self.text_bytes = ascii_bytes + non_ascii_bytes
        self.certain_tokens = self.text_bytes + media * MEDIA_MAX_TOKENS
        words_bytes = min(ascii_bytes, WORD_BYTES * spaces)
        dense_bytes = ascii_bytes - words_bytes - BODY_BYTES - MESSAGE_BYTES * messages
        words, dense = WORDS_RATIO * words_bytes, DENSE_RATIO * dense_bytes if dense_bytes > 0 else 0.0
        non_ascii, shown = NON_ASCII_RATIO * non_ascii_bytes, MEDIA_TOKENS * media
        self.reference = words + dense + non_ascii + shown + TEMPLATE_TOKENS + MESSAGE_TOKENS * messages
        kind: Kind = "words" if words >= dense else "dense"
        if non_ascii or shown:
            kinds: dict[Kind, float] = {"words": words, "dense": dense, "non_ascii": non_ascii, "media": shown}
            kind = max(kinds, key=kinds.__getitem__)
        self.its_class = kind, self.reference < SHORT_TOKENS


def measure(body: bytes, *, messages: int, media: int = 0, media_bytes: int = 0) -> Prompt:
    """Measure a body without spaces between its JSON tokens. media_bytes: of its images and sounds, as in the body."""
    non_ascii = 0 if body.isascii() else len(body.translate(None, _ASCII))
    return Prompt(max(0, len(body) - non_ascii - media_bytes), body.count(b" "), non_ascii, messages, media)


@dataclass(slots=True)
class _Largest:
    """The largest of the last WINDOW samples or more, up to twice as many. It need not be told of smaller ones."""

    running: float = 0.0
    before: float = 0.0
    largest: float = 0.0

    def note(self, value: float) -> None:
        """One that is larger than `running`."""
        self.running = value
        self.largest = max(value, self.before)

    def begin_window(self) -> None:
        self.largest = self.before = self.running
        self.running = 0.0


@dataclass(slots=True)
class _Class:
    """What prompts of a class were: times their reference, which tells of text, and beyond it, which tells of templates."""

    count: int = 0
    times: _Largest = field(default_factory=_Largest)
    beyond: _Largest = field(default_factory=_Largest)
    mean: float = 1.0

    def note(self, tokens: int, reference: float) -> None:
        if self.count and self.count % WINDOW == 0:
            self.times.begin_window()
            self.beyond.begin_window()
        self.count += 1
        times, beyond = tokens / reference, tokens - reference
        if times > self.times.running:
            self.times.note(times)
        if beyond > self.beyond.running:
            self.beyond.note(beyond)
        self.mean += (times - self.mean) * max(MEAN_WEIGHT, 1 / self.count)

    def upper_bound_tokens(self, prompt: Prompt) -> int:
        """By `times`; where a short prompt's template weighs more than its text, by `beyond`.

        A new largest of n samples comes once in n: within 0.1 % from 1,000 on, and the margin makes it rarer still.
        """
        reference, margin = prompt.reference, 1 + MARGIN + YOUNG_MARGIN / self.count
        bound = ceil(reference * (self.times.largest * margin))
        if reference >= SHORT_TOKENS:
            return bound
        return min(bound, ceil(reference * (1 + MARGIN)) + ceil(self.beyond.largest * margin))


@dataclass(slots=True)
class BoundLearner:
    """Of one deployment: learns from what its backends report. Some dozen numbers; one a worker, which each learns anew.

    By class: the kind of text that weighs most, and whether the prompt is short. So a base64 blob teaches nothing about
    prose, nor a greeting about a book.
    """

    _classes: dict[_ClassName, _Class] = field(default_factory=dict)
    _hidden_tokens: int = HIDDEN_TOKENS

    def note(self, prompt: Prompt, prompt_tokens: int) -> None:
        """The backend counted this prompt. Not for counts that are estimates, nor for prompts it truncated."""
        if prompt_tokens <= 0:
            return
        known = self._classes.get(prompt.its_class)
        if known is None:
            known = self._classes[prompt.its_class] = _Class()
        known.note(prompt_tokens, prompt.reference)
        hidden_tokens = prompt_tokens - prompt.text_bytes
        if hidden_tokens > self._hidden_tokens and not prompt.media:
            self._hidden_tokens = hidden_tokens

    def estimate(self, prompt: Prompt) -> tuple[int, int]:
        """realistic_tokens and upper_bound_tokens, which a call needs both."""
        certain = prompt.certain_tokens + self._hidden_tokens
        known = self._classes.get(prompt.its_class)
        if known is None:
            return min(round(prompt.reference), certain), certain
        bound = certain if known.count < LEARNED_FROM else min(certain, known.upper_bound_tokens(prompt))
        return min(round(prompt.reference * known.mean), bound), bound

    def upper_bound_tokens(self, prompt: Prompt) -> int:
        """What to reserve: exceeded by fewer than one prompt in a thousand once 1,000 of its class were counted."""
        return self.estimate(prompt)[1]

    def realistic_tokens(self, prompt: Prompt) -> int:
        return self.estimate(prompt)[0]
