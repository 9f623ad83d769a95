"""What a detector is made of: shapes that RE2 finds, and checks of what it found. Pure."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """One form in which a thing is written.

    pattern: RE2, for normalised text (normalize.py), without groups that capture. A stream's guard holds back what may still
        become a match: each is to have an end, but for keys and tokens that have begun beyond doubt (secret_shapes.py).
        Japanese letters are no word characters to \\b.
    check: is it one? Gets what the client wrote, so it may be full-width or have unseen characters in it; None: all are.
        What is refused is used up: the shape goes on behind it. Patterns rely on that where they take in the neighbour
        that tells them that this is something else (the rest of a longer number, a unit).
    """

    pattern: str
    check: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """label: what its masks are called, as in [EMAIL_1]. A text is one if any of the shapes finds it."""

    label: str
    shapes: tuple[Shape, ...]
