"""Masks: what stands in place of redacted text, the same for the same text throughout a call. Pure."""

import re
from typing import Final

# As the normalised text has them.
MASK_PATTERN: Final = r"\[[a-z][a-z0-9_]{0,30}_[0-9]{1,6}\]"
_SEPARATORS: Final = re.compile(r"[\s.()ー-]+")


class Masks:
    """One a call. Originals are kept only where the answer is to show them again."""

    __slots__ = ("_counts", "_masks", "_originals")

    def __init__(self) -> None:
        self._masks: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._originals: dict[str, str] = {}

    def mask(self, label: str, original: str, *, alike: str, restore: bool) -> str:
        """`[EMAIL_1]`, say. alike: texts that are to have the same mask have this in common, but for separators."""
        key = label, _SEPARATORS.sub("", alike)
        mask = self._masks.get(key)
        if mask is None:
            count = self._counts[label] = self._counts.get(label, 0) + 1
            mask = self._masks[key] = f"[{label}_{count}]"
        if restore:
            self._originals.setdefault(mask, original)
        return mask

    def original(self, mask: str) -> str | None:
        """What a mask in an answer stands for, where the rule restores it; models change the case of what they repeat."""
        return self._originals.get(mask.upper())

    @property
    def restores(self) -> bool:
        return bool(self._originals)
