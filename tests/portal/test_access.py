"""The one door: what each page asks of a person, and that no page came in without asking."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.models import Tenant, User
from accounts.roles import ALLOWED, Action, Role
from portal.access import tenant_for

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]

PUBLIC = {"livez", "sign-in/", "sign-out/", "language/", "invite/<str:token>/"}


def patterns(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            yield from patterns(entry, prefix + str(entry.pattern))
        else:
            yield prefix + str(entry.pattern), entry


def request_of(user: User) -> HttpRequest:
    request = RequestFactory().get("/")
    request.user = user
    return request


def without_request_id(content: bytes) -> bytes:
    return re.sub(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", b"", content)


def test_every_view_declares_who_may_open_it() -> None:
    declared: dict[str, Any] = {path: getattr(p.callback, "access", None) for path, p in patterns(get_resolver())}
    assert declared
    assert [path for path, access in declared.items() if access is None] == []
    assert {path for path, access in declared.items() if access == "public"} == PUBLIC
    of_tenants = {path for path in declared if "<slug:slug>" in path}
    assert of_tenants == {path for path, access in declared.items() if isinstance(access, Action)}


@pytest.mark.parametrize("path", ["/", "/t/acme/", "/t/no-such-tenant/"])
def test_nobody_is_sent_to_sign_in_whatever_the_tenant(client: Client, acme: Tenant, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer["location"]) == (302, f"/sign-in/?next={path}")


def test_stranger_tenant_gets_404_as_if_it_did_not_exist(signed_in: SignedIn, acme_admin: User, globex: Tenant) -> None:
    client = signed_in(acme_admin)
    strange, absent = client.get("/t/globex/"), client.get("/t/no-such-tenant/")
    assert strange.status_code == absent.status_code == 404
    assert without_request_id(strange.content) == without_request_id(absent.content)
    assert strange.content != absent.content  # the request id is there
    assert set(strange.headers) == set(absent.headers)
    assert client.get("/t/acme/").status_code == 200


def test_member_of_two_tenants_opens_both(signed_in: SignedIn, acme_viewer: User, globex: Tenant) -> None:
    globex.memberships.create(user=acme_viewer, role=Role.VIEWER)
    client = signed_in(acme_viewer)
    assert client.get("/t/acme/").status_code == client.get("/t/globex/").status_code == 200


def test_operator_opens_every_tenant(signed_in: SignedIn, operator: User, acme: Tenant, globex: Tenant) -> None:
    client = signed_in(operator)
    assert client.get("/t/acme/").status_code == client.get("/t/globex/").status_code == 200


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", Role)
def test_role_opens_what_the_matrix_allows(acme: Tenant, acme_viewer: User, role: Role, action: Action) -> None:
    acme.memberships.filter(user=acme_viewer).update(role=role)
    if action in ALLOWED[role]:
        assert tenant_for(request_of(acme_viewer), "acme", action) == acme
    else:
        with pytest.raises(PermissionDenied):
            tenant_for(request_of(acme_viewer), "acme", action)


@pytest.mark.parametrize("action", Action)
def test_stranger_is_not_told_that_a_role_is_missing(acme: Tenant, globex_admin: User, action: Action) -> None:
    with pytest.raises(Http404):
        tenant_for(request_of(globex_admin), "acme", action)


def test_role_without_the_right_gets_a_page_that_says_whom_to_ask(
    signed_in: SignedIn, acme_viewer: User, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALLOWED, Role.VIEWER, frozenset())
    answer = signed_in(acme_viewer).get("/t/acme/")
    assert answer.status_code == 403
    assert "ask an admin of this tenant" in answer.content.decode()
    assert answer["x-request-id"] in answer.content.decode()


def test_pages_behind_sign_in_are_kept_by_no_cache(signed_in: SignedIn, acme_viewer: User) -> None:
    assert "no-store" in signed_in(acme_viewer).get("/t/acme/")["cache-control"]


@pytest.mark.parametrize(("path", "allowed"), [("/", "GET, HEAD"), ("/t/acme/", "GET, HEAD"), ("/language/", "POST")])
def test_other_methods_get_a_designed_405(client: Client, path: str, allowed: str) -> None:
    answer = client.delete(path)
    assert (answer.status_code, answer["allow"]) == (405, allowed)
    assert answer["x-request-id"] in answer.content.decode()
