"""The settings of a tenant: who may change them, what each takes, and what a change leaves behind."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.utils import translation
from pytest_django import DjangoAssertNumQueries

from accounts.models import AuditEvent, Tenant, User
from gateway.models import ConfigChange

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
URL = "/t/acme/settings/"
HELD = {
    "name": "Acme",
    "language": "ja",
    "time_zone": "Asia/Tokyo",
    "error_dialect": "openai",
    "unknown_fields": "drop",
    "cors_origins": "",
    "usage_retention_days": 400,
    "store_out": "closed",
}


@pytest.fixture
def admin(signed_in: SignedIn, acme_admin: User) -> Client:
    return signed_in(acme_admin)


def post(client: Client, **fields: Any) -> str:
    answer = client.post(URL, HELD | fields, follow=True)
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def test_a_change_is_kept_with_one_event_of_what_changed(admin: Client, acme: Tenant, acme_admin: User) -> None:
    page = post(
        admin,
        name="Acme Ltd.",
        language="en",
        time_zone="Europe/Paris",
        error_dialect="both",
        unknown_fields="reject",
        cors_origins="https://App.example.com/\nhttp://localhost:3000\nhttps://app.example.com",
        store_out="degraded",
        usage_retention_days=500,
    )
    assert "Changed: it counts for every call" in page
    acme.refresh_from_db()
    assert (acme.name, acme.language, acme.time_zone) == ("Acme Ltd.", "en", "Europe/Paris")
    assert (acme.error_dialect, acme.unknown_fields, acme.store_out) == ("both", "reject", "degraded")
    assert acme.cors_origins == ["https://app.example.com", "http://localhost:3000"]
    event = AuditEvent.objects.for_tenant(acme).get()
    assert (event.verb, event.actor) == ("tenant.changed", acme_admin)
    assert set(event.before) == set(event.after) == set(HELD)
    assert (event.before["name"], event.after["name"]) == ("Acme", "Acme Ltd.")
    assert ConfigChange.objects.filter(object_id=str(acme.pk)).exists()


def test_nothing_changed_leaves_nothing(admin: Client) -> None:
    assert "Nothing was changed." in post(admin)
    assert not AuditEvent.objects.exists()


def test_only_what_changed_is_in_the_event(admin: Client, acme: Tenant) -> None:
    post(admin, language="en")
    event = AuditEvent.objects.for_tenant(acme).get()
    assert (event.before, event.after) == ({"language": "ja"}, {"language": "en"})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "a\nb"}, "Use no control characters."),
        ({"time_zone": "Tokyo"}, "“Tokyo” is no time zone"),
        ({"cors_origins": "https://app.example.com/path"}, "“https://app.example.com/path” is no origin"),
        ({"cors_origins": "*"}, "“*” is no origin"),
        ({"cors_origins": "\n".join(f"https://a{n}.example" for n in range(101))}, "Name 100 origins at most."),
        ({"usage_retention_days": 0}, "greater than or equal to 1"),
        ({"usage_retention_days": 99999}, "less than or equal to 3650"),
        ({"language": "fr"}, "fr is not one of the available choices"),
        ({"store_out": "open"}, "open is not one of the available choices"),
    ],
)
def test_what_cannot_be_is_said_and_what_was_typed_stays(
    admin: Client, acme: Tenant, fields: dict[str, Any], said: str
) -> None:
    page = post(admin, **({"name": "Typed"} | fields))
    assert said in page
    assert "Nothing was changed yet" in page
    assert 'value="Typed"' in page or "name" in fields
    acme.refresh_from_db()
    assert acme.name == "Acme"
    assert not AuditEvent.objects.exists()


def test_a_shorter_retention_is_typed_twice(admin: Client, acme: Tenant) -> None:
    page = post(admin, usage_retention_days=30)
    assert "Usage older than 30 days will be deleted" in page
    assert 'name="shorter"' in page
    assert "will be deleted" in post(admin, usage_retention_days=30, shorter=31)
    acme.refresh_from_db()
    assert acme.usage_retention_days == 400
    post(admin, usage_retention_days=30, shorter=30)
    acme.refresh_from_db()
    assert acme.usage_retention_days == 30
    assert 'name="shorter"' not in admin.get(URL).content.decode()


def test_what_operators_decide_is_shown_and_not_taken(admin: Client, acme: Tenant) -> None:
    post(admin, slug="other", priority=9, is_active="", suspension_reason="x")
    acme.refresh_from_db()
    assert (acme.slug, acme.priority, acme.is_active) == ("acme", 0, True)
    assert "Set by the operators" in admin.get(URL).content.decode()


@pytest.mark.parametrize("persona", ["acme_viewer", "acme_developer"])
def test_who_may_not_gets_403_and_no_room(signed_in: SignedIn, persona: str, request: pytest.FixtureRequest) -> None:
    client = signed_in(request.getfixturevalue(persona))
    assert client.get(URL).status_code == client.post(URL, HELD).status_code == 403
    assert URL not in client.get("/t/acme/docs/").content.decode()


def test_a_strangers_settings_are_404(signed_in: SignedIn, globex_admin: User, acme: Tenant) -> None:
    client = signed_in(globex_admin)
    assert client.get(URL).status_code == client.post(URL, HELD | {"name": "Mine"}).status_code == 404
    acme.refresh_from_db()
    assert acme.name == "Acme"


def test_stored_markup_stays_text(admin: Client) -> None:
    evil = "<script>alert(1)</script>"
    Tenant.objects.update(name=evil, suspension_reason=evil, is_active=False)
    assert evil not in admin.get(URL).content.decode()


def test_every_offered_time_zone_has_its_offset(admin: Client, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_max_num_queries(8):
        page = admin.get(URL).content.decode()
    zones = dict(re.findall(r'<option value="([A-Za-z/_+-]*)" label="([^"]*)">', page))
    assert zones["Asia/Tokyo"] == "+09:00"
    assert zones["America/Phoenix"] == "-07:00"
    assert len(zones) > 300


def test_the_page_is_japanese_where_it_is_asked_to_be(admin: Client) -> None:
    with translation.override("en"):
        page = admin.get(URL, headers={"accept-language": "ja"}).content.decode()
    assert "設定を保存" in page
