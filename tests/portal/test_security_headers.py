"""What every answer carries, how errors look, and that pages hold nothing the content security policy would stop."""

import logging
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError
from django.test import Client

from accounts.models import Tenant, User
from portal.middleware import CONTENT_SECURITY_POLICY
from portal.views import tenants

STATIC = Path(tenants.__file__).parent.parent / "static" / "portal"
TEMPLATES = Path(tenants.__file__).parent.parent.parent / "templates"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/", "/livez", "/sign-in/", "/sign-out/", "/t/acme/", "/nowhere/", "/sign-in", "/static/portal/gate.svg"]
)
def test_every_answer_carries_the_headers(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in answer["content-security-policy"]
    assert answer["x-content-type-options"] == "nosniff"
    assert UUID(answer["x-request-id"]).version == 7


def test_each_request_has_its_own_id(client: Client) -> None:
    assert client.get("/livez")["x-request-id"] != client.get("/livez")["x-request-id"]


def test_liveness_asks_no_store(client: Client) -> None:
    # Without a django_db mark a query would raise.
    answer = client.get("/livez")
    assert (answer.status_code, answer.content) == (200, b"ok")


@pytest.mark.django_db
def test_pages_have_no_inline_script_style_or_handler(client: Client, acme: Tenant, acme_viewer: User) -> None:
    pages = [client.get("/sign-in/"), client.get("/nowhere/")]
    client.force_login(acme_viewer)
    pages.append(client.get("/t/acme/"))
    for answer in pages:
        page = answer.content.decode()
        assert re.findall(r"<script(?![^>]*\ssrc=)", page) == []
        assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", page) == []


def test_host_that_is_not_ours_gets_a_designed_400(client: Client) -> None:
    answer = client.get("/sign-in/", headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert answer["x-request-id"] in answer.content.decode()
    assert answer["content-security-policy"] == CONTENT_SECURITY_POLICY


@pytest.mark.django_db
def test_missing_page_names_the_request_and_one_way_on(client: Client) -> None:
    answer = client.get("/nowhere/")
    page = answer.content.decode()
    assert answer.status_code == 404
    assert "no-store" in answer["cache-control"]
    assert answer["x-request-id"] in page
    assert page.count('class="button primary"') == 1


def test_page_of_a_failure_needs_no_database(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a django_db mark every query raises: what a database that is out looks like to the portal."""
    monkeypatch.setattr(logging.getLogger("django.request"), "handlers", [caplog.handler])
    monkeypatch.setattr(client, "raise_request_exception", False)
    client.cookies["sessionid"] = "x" * 32
    client.cookies["django_language"] = "ja"
    client.cookies["sekisho_theme"] = "dark"
    answer = client.get("/t/acme/")
    page = answer.content.decode()
    assert answer.status_code == 500
    assert "サーバーで問題が起きました" in page
    assert 'data-theme="dark"' in page
    assert answer["x-request-id"] in page
    assert "Traceback" not in page
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.django_db
def test_failure_of_the_database_in_a_view_is_a_500_page(
    client: Client, acme_viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OperationalError("server closed the connection")

    client.force_login(acme_viewer)
    client.raise_request_exception = False
    monkeypatch.setattr(tenants.snippets, "base_url", fail)
    answer = client.get("/t/acme/")
    assert answer.status_code == 500
    assert "server closed" not in answer.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(("next_page", "lands_at"), [("/t/acme/", "/t/acme/"), ("https://evil.example/", "/"), ("", "/")])
def test_language_is_kept_in_cookie_and_on_the_user(client: Client, acme_viewer: User, next_page: str, lands_at: str) -> None:
    client.force_login(acme_viewer)
    answer = client.post("/language/", {"language": "ja", "next": next_page})
    assert (answer.status_code, answer["location"]) == (302, lands_at)
    assert client.cookies["django_language"]["samesite"] == "Lax"
    acme_viewer.refresh_from_db()
    assert acme_viewer.language == "ja"
    page = client.get("/t/acme/").content.decode()
    assert '<html lang="ja"' in page


@pytest.mark.django_db
def test_language_we_do_not_speak_is_refused(client: Client) -> None:
    assert client.post("/language/", {"language": "xx"}).status_code == 400
    assert "django_language" not in client.cookies


@pytest.mark.django_db
@pytest.mark.parametrize(("cookie", "theme"), [("dark", "dark"), ("light", "light"), ("", "system"), ('"><script>', "system")])
def test_theme_is_set_by_the_server(client: Client, cookie: str, theme: str) -> None:
    client.cookies["sekisho_theme"] = cookie
    assert f'data-theme="{theme}"' in client.get("/sign-in/").content.decode()


def test_no_page_loads_more_than_30_kb_of_styles() -> None:
    sheet = re.compile(r"'portal/(\w+\.css)'")
    everywhere = set(sheet.findall((TEMPLATES / "base.html").read_text()))
    for page in TEMPLATES.rglob("*.html"):
        loaded = everywhere | set(sheet.findall(page.read_text()))
        assert sum((STATIC / name).stat().st_size for name in loaded) <= 30 * 1024, page


@pytest.mark.parametrize("name", sorted(path.name for path in STATIC.iterdir()))
def test_static_file_is_served_by_the_portal_itself(client: Client, name: str) -> None:
    answer = client.get(f"/static/portal/{name}")
    assert answer.status_code == 200
    assert answer.getvalue() == (STATIC / name).read_bytes()


def test_colours_are_named_in_the_tokens_alone() -> None:
    for path in STATIC.glob("*.css"):
        if path.name != "tokens.css":
            assert re.findall(r"#[0-9a-f]{3,8}\b|\brgba?\(|\bhsl", path.read_text()) == [], path.name
