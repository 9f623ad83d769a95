"""The catalogues of translations: what the sources say, what the .po files know of it. Needs babel and polib, not gettext.

English is the language of the sources, so that the en catalogue holds only what shall read otherwise.
"""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Final

import polib  # type: ignore[import-untyped]  # it ships no types
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from django.utils.translation.template import templatize

PROJECT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ("accounts", "usage", "gateway", "portal", "templates")
LOCALE: Final = PROJECT / "portal" / "locale"
COMPLETE: Final = ("ja",)
LANGUAGES: Final = (*COMPLETE, "en")
KEYWORDS: Final = DEFAULT_KEYWORDS | {
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext_lazy": (1, 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext_lazy": ((1, "c"), 2, 3),
}
PLACEHOLDER: Final = re.compile(r"%\((\w+)\)[a-z]|%[sd]|\{\w*\}")

# A message's identity in gettext: context, singular, plural; "" where there is none.
Message = tuple[str, str, str]


def messages() -> dict[Message, list[str]]:
    """Each message of the sources, with the files that say it."""
    found: dict[Message, list[str]] = {}
    for path in _sources():
        text = path.read_text()
        if path.suffix == ".html":
            # templatize turns a template into calls of gettext amid noise; without its indentation Python's tokenizer reads it.
            text = "\n".join(line.lstrip() for line in templatize(text).splitlines())
        for _line, said, _comments, context in extract("python", BytesIO(text.encode()), KEYWORDS):
            forms = (said,) if isinstance(said, str) else tuple(said)
            message = (context or "", forms[0], forms[1] if len(forms) > 1 else "")
            name = path.relative_to(PROJECT).as_posix()
            files = found.setdefault(message, [])
            if name not in files:
                files.append(name)
    return found


def update(language: str) -> None:
    """Bring the .po in line with the sources: new messages untranslated, unused ones gone; then compile the .mo."""
    path = _po(language)
    before = polib.pofile(str(path))
    old = {_identity(entry): entry for entry in before}
    new = polib.POFile(wrapwidth=100)
    new.header = before.header  # the translators' notes and glossary
    new.metadata = {
        "Language": language,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Transfer-Encoding": "8bit",
        "Plural-Forms": "nplurals=1; plural=0;" if language == "ja" else "nplurals=2; plural=(n != 1);",
    }
    for message, files in sorted(messages().items(), key=lambda item: (item[1][0], item[0])):
        entry = old.get(message)
        if entry is None:
            if language not in COMPLETE:
                continue
            entry = _entry(message)
        # Without line numbers: else every change of a file would change the catalogue.
        entry.occurrences = [(name, "") for name in files]
        new.append(entry)
    new.save(str(path))
    new.save_as_mofile(str(path.with_suffix(".mo")))


def complaints(language: str) -> Iterator[str]:
    """What is wrong with the catalogue of a language, a sentence each; nothing when it is whole and compiled."""
    path = _po(language)
    catalogue = polib.pofile(str(path))
    said = messages()
    known = {_identity(entry): entry for entry in catalogue}
    if language in COMPLETE:
        for message in said.keys() - known.keys():
            yield f"{path.name} {language}: missing: {message[1]!r} of {said[message][0]}"
    for message, entry in known.items():
        if entry.obsolete or message not in said:
            yield f"{path.name} {language}: no longer said: {message[1]!r}"
        elif entry.fuzzy or not entry.translated():
            yield f"{path.name} {language}: not translated: {message[1]!r} of {said[message][0]}"
        elif wrong := _foreign_placeholders(entry):
            yield f"{path.name} {language}: {wrong} does not fit: {message[1]!r}"
    compiled = path.with_suffix(".mo")
    if not compiled.exists() or _texts(polib.mofile(str(compiled))) != _texts(catalogue):
        yield f"{compiled.name} {language}: not what {path.name} says"


def _sources() -> Iterator[Path]:
    for folder in SOURCES:
        for path in sorted((PROJECT / folder).rglob("*")):
            if path.suffix in (".py", ".html") and "migrations" not in path.parts:
                yield path


def _po(language: str) -> Path:
    return LOCALE / language / "LC_MESSAGES" / "django.po"


def _identity(entry: polib.POEntry | polib.MOEntry) -> Message:
    return (entry.msgctxt or "", entry.msgid, entry.msgid_plural or "")


def _entry(message: Message) -> polib.POEntry:
    context, singular, plural = message
    entry = polib.POEntry(msgctxt=context or None, msgid=singular)
    if plural:
        entry.msgid_plural = plural
        entry.msgstr_plural = {0: ""}
    if "%(" in singular + plural:
        entry.flags.append("python-format")
    return entry


def _foreign_placeholders(entry: polib.POEntry) -> str:
    """Those that the translation has and the message has not, or the other way round; a plural may leave a number out."""
    allowed = set(PLACEHOLDER.findall(entry.msgid + entry.msgid_plural))
    for text in entry.msgstr_plural.values() if entry.msgid_plural else [entry.msgstr]:
        used = set(PLACEHOLDER.findall(text))
        wrong = used - allowed if entry.msgid_plural else used ^ allowed
        if wrong:
            return ", ".join(sorted(wrong))
    return ""


def _texts(catalogue: polib.POFile | polib.MOFile) -> dict[Message, tuple[str, ...]]:
    return {_identity(entry): (entry.msgstr, *(text for _, text in sorted(entry.msgstr_plural.items()))) for entry in catalogue}
