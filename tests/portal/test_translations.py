"""The gate of translations: every message of the sources reads well in Japanese, and what is compiled is what was written."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import polib
import pytest
from django.core.management import CommandError, call_command
from django.utils import translation

from portal import catalogue

JAPANESE = re.compile(r"[぀-ヿ一-鿿]")


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
def test_catalogue_is_complete_current_and_compiled(language: str) -> None:
    assert list(catalogue.complaints(language)) == []


def test_update_changes_nothing_when_nothing_new_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = copied(tmp_path, monkeypatch)
    catalogue.update("ja")
    assert files_of(tmp_path) == before


def copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, bytes]:
    """The catalogues in a folder of the test's own, where it may spoil them."""
    shutil.copytree(catalogue.LOCALE, folder, dirs_exist_ok=True)
    monkeypatch.setattr(catalogue, "LOCALE", folder)
    return files_of(folder)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("django.?o")}


def untranslate(po: polib.POFile) -> None:
    po.find("Sign in").msgstr = ""


def doubt(po: polib.POFile) -> None:
    po.find("Sign in").flags.append("fuzzy")


def forget(po: polib.POFile) -> None:
    po.remove(po.find("Sign in"))


def linger(po: polib.POFile) -> None:
    po.append(polib.POEntry(msgid="No page says this", msgstr="どのページにもない文"))


def break_placeholder(po: polib.POFile) -> None:
    po.find("Reason: %(reason)s").msgstr = "理由：%(riyuu)s"


def reword(po: polib.POFile) -> None:
    po.find("Sign in").msgstr = "ログイン"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (untranslate, "not translated: 'Sign in'"),
        (doubt, "not translated: 'Sign in'"),
        (forget, "missing: 'Sign in'"),
        (linger, "no longer said: 'No page says this'"),
        (break_placeholder, "does not fit: 'Reason: %(reason)s'"),
        (reword, "django.mo ja: not what django.po says"),
    ],
)
def test_gate_notices(
    spoil: Callable[[polib.POFile], None], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(tmp_path, monkeypatch)
    path = tmp_path / "ja" / "LC_MESSAGES" / "django.po"
    po = polib.pofile(str(path))
    spoil(po)
    po.save(str(path))
    assert complaint in "\n".join(catalogue.complaints("ja"))
    with pytest.raises(CommandError):
        call_command("translations", "--check")


def test_extraction_sees_templates_python_plurals_and_attributes() -> None:
    said = catalogue.messages()
    assert "templates/account/login.html" in said[("", "Sign in", "")]
    assert said[("", "Developer", "")] == ["accounts/roles.py"]
    assert ("", "%(number)d worker", "%(number)d workers") in said
    assert ("", "Copied", "") in said


def test_no_text_of_a_template_stands_outside_gettext() -> None:
    """Words between tags that templatize did not take: they would stay English for everyone."""
    names = {"– Sekisho", "Sekisho", "関所", "manage.py apply FILE", "manage.py keys create", "--name NAME", "g", "v"}
    names |= {"manage.py changepassword", "SEKISHO_OIDC"}
    names |= {
        "curl",
        "Python",
        "JavaScript",
        "Open WebUI",
        "LangChain",
        "CSV",
        "NDJSON",
        "HMAC-SHA256",
        "HTTP",
        "URL",
        "(UTC)",
        ", UTC",
    }
    names |= {"JavaScript (Node.js)"}
    for path in sorted((catalogue.PROJECT / "templates").rglob("*.html")):
        text = re.sub(r"{%\s*(comment|blocktranslate)\b.*?{%\s*end\1\s*%}", "", path.read_text(), flags=re.DOTALL)
        text = re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "\n", text, flags=re.DOTALL)
        text = re.sub(r"<[^>]*>", "\n", text)
        words = {line.strip() for line in text.splitlines() if re.search(r"[^\W\d_]", line)}
        assert words - names == set(), path


def test_no_tag_of_a_template_spans_lines() -> None:
    """Django would show it as it stands."""
    for path in sorted((catalogue.PROJECT / "templates").rglob("*.html")):
        text = re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "", path.read_text())
        assert re.findall(r"{[{%#]|[}%#]}", text) == [], path


def test_japanese_reads_as_japanese() -> None:
    """A translation without one kana or kanji is an oversight, unless it is a product's name."""
    entries = polib.pofile(str(catalogue.LOCALE / "ja" / "LC_MESSAGES" / "django.po"))
    texts = [text for entry in entries for text in (*entry.msgstr_plural.values(), entry.msgstr) if text]
    worded = [text for text in texts if re.search(r"[^\W\d_]", re.sub(r"%\(\w+\)\w", "", text))]
    assert {text for text in worded if not JAPANESE.search(text)} == {
        "JavaScript（openai）", "LangChain（Python、langchain-openai）", "Python（openai）", "ID", "JSON", "Top p", "Webhook",
    }  # fmt: skip


def test_figures_and_letters_stand_apart_from_japanese() -> None:
    entries = polib.pofile(str(catalogue.LOCALE / "ja" / "LC_MESSAGES" / "django.po"))
    texts = [re.sub(r"%\(\w+\)\w", "%", text) for entry in entries for text in (*entry.msgstr_plural.values(), entry.msgstr)]
    wide = "[ぁ-ゖァ-ヺー一-鿿]"
    assert [text for text in texts if re.search(f"[0-9A-Za-z]{wide}|{wide}[0-9A-Za-z]", text)] == []


def test_compiled_catalogue_is_what_pages_speak() -> None:
    with translation.override("ja"):
        assert translation.gettext("Sign out") == "サインアウト"
        assert translation.ngettext("%(number)d worker", "%(number)d workers", 2) % {"number": 2} == "ワーカー 2 個"
    with translation.override("en"):
        assert translation.ngettext("%(number)d worker", "%(number)d workers", 1) % {"number": 1} == "1 worker"


def test_check_command_is_content() -> None:
    call_command("translations", "--check")
