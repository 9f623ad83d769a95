"""Turning the pages of a list, as a reader does: by its links."""

import re
from html import unescape

from django.test import Client


def link(page: str, rel: str) -> str:
    """The address, from its question mark on, of the page that is `prev` or `next`; "" where there is none."""
    found = re.search(rf'rel="{rel}" href="([^"]*)"', page)
    return unescape(found[1]) if found else ""


def turned(client: Client, path: str, page: str, rel: str = "next") -> str:
    answer = client.get(path + link(page, rel))
    assert answer.status_code == 200
    return answer.content.decode()
