"""The caller's language: ja or en, from Accept-Language."""

from functools import lru_cache

from django.utils.translation.trans_real import parse_accept_lang_header

LANGUAGES = ("en", "ja")


@lru_cache(maxsize=256)
def preferred_language(accept_language: str) -> str:
    """The first language of the header that we speak, by its quality; en when there is none."""
    for code, _quality in parse_accept_lang_header(accept_language):
        if (base := code.split("-")[0]) in LANGUAGES:
            return base
    return "en"
