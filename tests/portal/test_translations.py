"""The gate of translations: every message of the sources reads well in Japanese, and what is compiled is what was written."""

import re

import polib
import pytest
from django.core.management import call_command
from django.utils import translation

from portal import catalogue

JAPANESE = re.compile(r"[぀-ヿ一-鿿]")


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
def test_catalogue_is_complete_current_and_compiled(language: str) -> None:
    assert list(catalogue.complaints(language)) == []


def test_extraction_sees_templates_python_plurals_and_attributes() -> None:
    said = catalogue.messages()
    assert said[("", "Sign in", "")] == ["templates/registration/sign_in.html"]
    assert said[("", "Owner", "")] == ["accounts/roles.py"]
    assert ("", "%(number)s network", "%(number)s networks") in said
    assert ("", "Copied", "") in said


def test_no_text_of_a_template_stands_outside_gettext() -> None:
    """Words between tags that templatize did not take: they would stay English for everyone."""
    names = {"– Sekisho", "Sekisho", "関所", "manage.py apply FILE", "manage.py keys create", "--name NAME"}
    for path in sorted((catalogue.PROJECT / "templates").rglob("*.html")):
        text = re.sub(r"{%\s*(comment|blocktranslate)\b.*?{%\s*end\1\s*%}", "", path.read_text(), flags=re.DOTALL)
        text = re.sub(r"{%.*?%}|{{.*?}}|<[^>]*>", "\n", text, flags=re.DOTALL)
        words = {line.strip() for line in text.splitlines() if re.search(r"[^\W\d_]", line)}
        assert words - names == set(), path


def test_japanese_reads_as_japanese() -> None:
    """A translation without one kana or kanji is an oversight, unless it is a product's name."""
    entries = polib.pofile(str(catalogue.LOCALE / "ja" / "LC_MESSAGES" / "django.po"))
    texts = [text for entry in entries for text in (*entry.msgstr_plural.values(), entry.msgstr) if text]
    assert [text for text in texts if not JAPANESE.search(text)] == ["Python（openai）"]


def test_compiled_catalogue_is_what_pages_speak() -> None:
    with translation.override("ja"):
        assert translation.gettext("Sign out") == "サインアウト"
        assert translation.ngettext("%(number)s network", "%(number)s networks", 2) % {"number": 2} == "2 件"
    with translation.override("en"):
        assert translation.ngettext("%(number)s network", "%(number)s networks", 1) % {"number": 1} == "1 network"


def test_check_command_is_content() -> None:
    call_command("translations", "--check")
