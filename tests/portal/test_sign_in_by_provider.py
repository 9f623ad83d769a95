"""Signing in through an OpenID Connect provider: whom it opens an account for, and whom not."""

import html
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from accounts import inviting
from accounts.models import AuditEvent, Tenant, User
from accounts.roles import Role
from portal.settings import env
from tests.conftest import PASSWORD
from tests.portal.provider import Provider, running, state_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def provider(settings: Settings) -> Iterator[Provider]:
    with running() as server:
        settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [server.app]}}
        yield server


def says(provider: Provider, email: str, **more: Any) -> None:
    provider.claims = {"sub": "person-1", "email": email, "email_verified": True, "name": "Aki", **more}


def leave(client: Client, **fields: str) -> str:
    """Press the button of the provider; where the browser is led."""
    page = client.post("/sign-in/with/corp/", {"process": "login"} | fields).content.decode()
    return html.unescape(re.search(r'<a class="button primary" href="([^"]+)"', page)[1])


def come_back(client: Client, **fields: str) -> HttpResponse:
    address = leave(client, **fields)
    return client.get("/sign-in/with/corp/answer/", {"code": "the code", "state": state_of(address)})


def verbs() -> list[str]:
    """Those of signing in and out: test_sign_in_trail.py."""
    told = AuditEvent.objects.exclude(verb__startswith="person.sign").exclude(verb="person.locked_out")
    return list(told.order_by("sequence").values_list("verb", flat=True))


def test_button_leads_to_the_provider_by_a_page_of_ours(client: Client, provider: Provider) -> None:
    assert "Sign in with Corp" in client.get("/sign-in/").content.decode()
    assert leave(client).startswith(f"{provider.issuer}/authorization?")


def test_known_address_opens_its_account_and_keeps_its_password(client: Client, provider: Provider, acme_viewer: User) -> None:
    says(provider, acme_viewer.email.upper())
    assert come_back(client)["location"] == "/"
    assert client.get("/t/acme/").status_code == 200
    assert verbs() == ["person.provider_connected"]
    acme_viewer.refresh_from_db()
    assert acme_viewer.check_password(PASSWORD)
    client.post("/sign-out/")
    assert come_back(client)["location"] == "/"
    assert verbs() == ["person.provider_connected"]


def test_page_asked_for_comes_after_the_provider(client: Client, provider: Provider, acme_viewer: User) -> None:
    says(provider, acme_viewer.email)
    assert come_back(client, next="/t/acme/keys/")["location"] == "/t/acme/keys/"


def test_provider_leads_to_no_other_host(client: Client, provider: Provider, acme_viewer: User) -> None:
    says(provider, acme_viewer.email)
    assert come_back(client, next="https://evil.example/")["location"] == "/"


def test_invited_address_gets_its_account_and_its_memberships(
    client: Client, provider: Provider, acme: Tenant, globex: Tenant
) -> None:
    for tenant in (acme, globex):
        inviting.invite(tenant, "new@corp.example", Role.VIEWER, actor=None, actor_label="test")
    says(provider, "new@corp.example")
    assert come_back(client)["location"] == "/"
    user = User.objects.get(email="new@corp.example")
    assert (user.name, user.has_usable_password()) == ("Aki", False)
    assert client.get("/t/acme/").status_code == client.get("/t/globex/").status_code == 200
    assert verbs()[2:] == ["member.joined", "member.joined", "person.provider_connected"]
    assert client.get("/account/password/")["location"] == "/account/password/set/"
    assert client.get("/account/password/set/").status_code == 200


def test_stranger_is_told_that_accounts_come_by_invitation(client: Client, provider: Provider) -> None:
    says(provider, "stranger@corp.example")
    answer = come_back(client)
    assert answer.status_code == 403
    assert "Nobody has invited stranger@corp.example" in answer.content.decode()
    assert not User.objects.exists()
    assert verbs() == []


def test_address_that_is_not_proven_opens_nothing(client: Client, provider: Provider, operator: User) -> None:
    says(provider, operator.email, email_verified=False)
    answer = come_back(client)
    assert answer.status_code == 403
    assert "proven" in answer.content.decode()
    assert client.get("/admin/access/").status_code == 302


def test_installation_may_say_that_all_addresses_of_a_provider_are_proven(
    client: Client, provider: Provider, settings: Settings, acme_viewer: User
) -> None:
    app = provider.app
    app["settings"]["vouches_for_addresses"] = True
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [app]}}
    says(provider, acme_viewer.email)
    del provider.claims["email_verified"]
    assert come_back(client)["location"] == "/"


def test_closed_account_is_not_opened(client: Client, provider: Provider, acme_viewer: User) -> None:
    User.objects.filter(pk=acme_viewer.pk).update(is_active=False)
    says(provider, acme_viewer.email)
    assert come_back(client)["location"] == "/sign-in/closed/"
    assert "is closed" in client.get("/sign-in/closed/").content.decode()
    assert client.get("/t/acme/").status_code == 302


def test_address_that_changed_hands_at_the_provider_opens_nothing_new(
    client: Client, provider: Provider, acme_viewer: User, acme_admin: User
) -> None:
    says(provider, acme_viewer.email)
    come_back(client)
    client.post("/sign-out/")
    says(provider, acme_admin.email)  # the same `sub`
    come_back(client)
    assert acme_viewer.email in client.get("/account/").content.decode()


def test_answer_nobody_asked_for_opens_nothing(client: Client, provider: Provider, acme_viewer: User) -> None:
    says(provider, acme_viewer.email)
    answer = client.get("/sign-in/with/corp/answer/", {"code": "the code", "state": "made up"})
    assert "did not let you in" in answer.content.decode()
    assert client.get("/t/acme/").status_code == 302


def test_refusal_at_the_provider_is_a_page(client: Client, provider: Provider) -> None:
    state = state_of(leave(client))
    answer = client.get("/sign-in/with/corp/answer/", {"error": "access_denied", "state": state}, follow=True)
    assert "Signing in was cancelled" in answer.content.decode()


def test_provider_that_is_none_is_not_there(client: Client, provider: Provider) -> None:
    assert client.post("/sign-in/with/other/").status_code == 404
    assert client.get("/sign-in/with/corp/").status_code == 405


def test_provider_that_is_out_is_a_page(client: Client, settings: Settings) -> None:
    with running() as server:
        app = server.app
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": [app]}}
    answer = client.post("/sign-in/with/corp/")
    assert "did not let you in" in answer.content.decode()


def test_providers_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_OIDC", "corp")
    with pytest.raises(ImproperlyConfigured, match="SEKISHO_OIDC_CORP_URL"):
        env.oidc_providers()
    monkeypatch.setenv("SEKISHO_OIDC_CORP_URL", "https://id.corp.example/")
    monkeypatch.setenv("SEKISHO_OIDC_CORP_CLIENT_ID", "sekisho")
    monkeypatch.setenv("SEKISHO_OIDC_CORP_CLIENT_SECRET", "hidden")
    monkeypatch.setenv("SEKISHO_OIDC_CORP_NAME", "Corp ID")
    (provider,) = env.oidc_providers()
    assert (provider["provider_id"], provider["name"], provider["secret"]) == ("corp", "Corp ID", "hidden")
    assert provider["settings"] == {"server_url": "https://id.corp.example", "vouches_for_addresses": False}
