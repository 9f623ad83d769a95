"""What can be wrong with rules: a code with its facts, and the English sentence of each. Pure.

Other languages are the portal's to know (portal/wording.py), by the code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Facts = Mapping[str, str | int]

SENTENCES: Final[Mapping[str, str]] = {
    "not_a_list": "must be a list of rules.",
    "too_many_rules": "has more than %(most)d rules; make it two policies.",
    "not_a_mapping": "must be a mapping, like {kind: keywords, words: [...], where: [input], action: block}.",
    "not_json": "must hold what JSON can hold; write dates in quotes.",
    "holds_nul": "holds the character NUL, which cannot be kept.",
    "name_taken": '"%(name)s" is the name of an earlier rule; choose another.',
    "not_one_of": "must be one of %(choices)s.",
    "not_a_flag": "must be true or false.",
    "not_a_number": "must be a whole number from 1 to %(most)d.",
    "not_a_text": "must be a text of 1 to %(most)d characters.",
    "not_texts": "must be a list of 1 to %(most)d texts.",
    "where_not_a_list": "must be a list of %(choices)s.",
    "where_not_looked_at": "a rule of this kind looks at %(choices)s only.",
    "no_such_field": "is no field of such a rule. There are %(choices)s.",
    "no_span_to_redact": "must be block or flag: a rule of this kind finds no span that could be masked.",
    "bad_name": "must be 1 to 64 letters, digits, dots, dashes or underscores.",
    "bad_label": "must be a capital letter and up to 30 capital letters, digits or underscores.",
    "nothing_to_restore": "only what is redacted in the input can be restored in the answer.",
    "no_bound": "must have max_characters, max_messages or max_images.",
    "answer_has_characters_alone": "an answer has no messages and no images; give max_characters.",
    "pattern_refused": "RE2 refuses it: %(reason)s. Look-around and back-references are not to be had.",
    "pattern_too_large": "it is too large; write smaller counts than {1,1000}, or * and +.",
    "pattern_matches_nothing": "it also matches nothing at all, and so everywhere; demand at least one character.",
    "pattern_not_understood": "what begins at character %(place)d is not understood; write it in another way.",
    "pattern_too_deep": "its groups are nested too deep.",
    "patterns_too_large": "RE2 refuses it, or all of them together are too large.",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in a rule. path: from the list of rules on, as in `[2].pattern`. code: of SENTENCES, with its facts."""

    path: str
    code: str
    facts: Facts = field(default_factory=dict)

    @property
    def text(self) -> str:
        """A sentence for people, in English."""
        return sentence(self.code, self.facts)


def sentence(code: str, facts: Facts) -> str:
    return SENTENCES[code] % facts if facts else SENTENCES[code]
