"""What a browser would send of a form on a page, as it is shown."""

from html.parser import HTMLParser
from typing import Any

from django.test import Client

Fields = dict[str, list[str]]


class _Form(HTMLParser):
    """The first POST form inside <main> that leads to `path`, or to the page itself."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.fields = path, Fields()
        self.is_main = self.is_ours = self.is_done = False
        self.select = self.text = ""
        self.options: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        said = dict(attrs)
        self.is_main = self.is_main or tag == "main"
        if tag == "form" and self.is_main and not self.is_done:
            self.is_ours = said.get("method") == "post" and said.get("action", self.path) == self.path
        elif self.is_ours and not self.is_done:
            self._control(tag, said)

    def _control(self, tag: str, said: dict[str, Any]) -> None:
        name = said.get("name", "")
        if "disabled" in said:
            return
        if tag == "input" and name and (said.get("type") not in ("checkbox", "radio") or "checked" in said):
            self.fields.setdefault(name, []).append(said.get("value", "on" if said.get("type") == "checkbox" else ""))
        elif tag == "select":
            self.select, self.options = name, []
        elif tag == "option" and self.select:
            self.options.append((said.get("value", ""), "selected" in said))
        elif tag == "textarea":
            self.text = name
            self.fields.setdefault(name, [""])

    def handle_data(self, data: str) -> None:
        if self.text:
            self.fields[self.text][0] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "select" and self.select:
            chosen = [value for value, is_chosen in self.options if is_chosen] or [value for value, _ in self.options[:1]]
            self.fields.setdefault(self.select, []).extend(chosen)
            self.select = ""
        elif tag == "textarea":
            self.text = ""
        elif tag == "form" and self.is_ours:
            self.is_ours, self.is_done = False, True


def filled(client: Client, page: str, url: str) -> Fields:
    """The fields of the form that leads to `url`, as the page at `page` shows it."""
    answer = client.get(page)
    assert answer.status_code == 200, (page, answer.status_code)
    form = _Form(url)
    form.feed(answer.content.decode())
    assert form.is_done, f"{page} has no form that leads to {url}"
    return {name: [value.removeprefix("\n") for value in values] for name, values in form.fields.items()}
