"""View as tenant: an operator sees what members see, changes nothing, and both its ends stand in the audit trail."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import get_resolver, reverse
from django.urls.converters import IntConverter

from accounts import issuing
from accounts.models import ApiKey, AuditEvent, Tenant, User
from gateway.config import policies
from gateway.models import Deployment, ModelAlias
from tests.portal.test_access import patterns

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
WITHIN = sorted({p.name for path, p in patterns(get_resolver()) if "<slug:slug>" in path and p.name})


@pytest.fixture
def looking(signed_in: SignedIn, operator: User, acme: Tenant) -> Client:
    client = signed_in(operator)
    answer = client.post("/admin/tenants/acme/view/")
    assert (answer.status_code, answer["location"]) == (302, "/t/acme/")
    return client


@pytest.fixture
def furnished(acme: Tenant, acme_key: tuple[ApiKey, str]) -> dict[str, object]:
    """What stands in the addresses of a tenant's pages."""
    deployment = Deployment.objects.create(name="gpu-pool-7", served_model="tiny")
    ModelAlias.objects.create(tenant=acme, name="general", deployment=deployment)
    policies.create(acme, "calm", actor=None, actor_label="test")
    return {"slug": "acme", "pk": acme_key[0].pk, "name": "calm", "number": 1}


def url_of(name: str, furnished: dict[str, object]) -> str:
    entry = next(p for _, p in patterns(get_resolver()) if p.name == name)
    return reverse(
        name,
        kwargs={
            part: 1 if isinstance(converter, IntConverter) else furnished.get(part, uuid4())
            for part, converter in entry.pattern.converters.items()
        },
    )


@pytest.mark.parametrize("name", WITHIN)
def test_nothing_that_is_sent_to_a_tenants_page_is_taken(looking: Client, furnished: dict[str, object], name: str) -> None:
    before = AuditEvent.objects.count()
    url = url_of(name, furnished)
    answer = looking.post(url, {"name": "new", "scopes": ["chat"], "reach": "all", "expiry": "90", "overlap": "0"})
    assert answer.status_code in (403, 405)
    assert AuditEvent.objects.count() == before
    assert ApiKey.objects.get().state == "active"


def test_the_refusal_says_why_and_keeps_the_banner(looking: Client, furnished: dict[str, object]) -> None:
    answer = looking.post(f"/t/acme/keys/{furnished['pk']}/revoke/", {"name": "ci"})
    page = answer.content.decode()
    assert answer.status_code == 403
    assert "You are only looking" in page
    assert "You see Acme as its members do." in page


def test_members_pages_are_read_with_a_banner_and_without_what_operators_alone_see(
    looking: Client, furnished: dict[str, object]
) -> None:
    for path in ("/t/acme/", "/t/acme/keys/", "/t/acme/aliases/", "/t/acme/limits/", "/t/acme/audit/", "/t/acme/policies/"):
        page = looking.get(path).content.decode()
        assert "You see Acme as its members do." in page, path
        assert "gpu-pool-7" not in page, path
        assert "/admin/tenants/" not in page, path
        assert "/keys/new/" not in page, path


@pytest.mark.parametrize("path", ["/t/acme/keys/new/", "/t/acme/policies/_new/"])
def test_pages_that_only_change_are_not_opened(looking: Client, path: str) -> None:
    assert looking.get(path).status_code == 403


def test_another_tenant_and_the_platform_are_out_of_reach(looking: Client, globex: Tenant) -> None:
    assert looking.get("/t/globex/").status_code == 404
    for path in ("/admin/tenants/", "/admin/tenants/acme/", "/admin/plans/"):
        answer = looking.get(path)
        assert answer.status_code == 403
        assert "You are only looking" in answer.content.decode()
    assert looking.post("/admin/tenants/acme/resume/").status_code == 403
    assert looking.get("/")["location"] == "/t/acme/"


def test_start_and_stop_are_told_to_the_tenant(looking: Client, operator: User, acme: Tenant) -> None:
    assert looking.post("/admin/viewing/stop/")["location"] == "/admin/tenants/acme/"
    events = AuditEvent.objects.filter(tenant=acme).order_by("sequence")
    assert [event.verb for event in events] == ["tenant.viewing_begun", "tenant.viewing_ended"]
    assert {event.actor for event in events} == {operator}
    page = looking.get("/t/acme/limits/").content.decode()
    assert "as its members do" not in page
    assert "/admin/tenants/acme/limits/" in page
    looking.post("/admin/viewing/stop/")
    assert AuditEvent.objects.count() == 2


def test_viewing_ends_with_the_session(looking: Client, signed_in: SignedIn, operator: User) -> None:
    looking.post("/sign-out/")
    assert {event.verb for event in AuditEvent.objects.all()[:2]} == {"tenant.viewing_ended", "person.signed_out"}
    assert signed_in(operator).get("/admin/tenants/").status_code == 200


def test_viewing_a_tenant_that_is_deleted_meanwhile_ends(looking: Client, acme: Tenant) -> None:
    acme.delete()
    assert looking.get("/admin/tenants/").status_code == 200


def test_the_operator_is_one_again_in_the_database(looking: Client, operator: User) -> None:
    looking.get("/t/acme/")
    looking.post("/language/", {"language": "ja", "next": "/"})
    operator.refresh_from_db()
    assert operator.is_operator


def test_members_cannot_view_as(signed_in: SignedIn, acme_owner: User, acme: Tenant) -> None:
    client = signed_in(acme_owner)
    assert client.post("/admin/tenants/acme/view/").status_code == 404
    assert client.post("/admin/viewing/stop/").status_code == 404
    session = client.session
    session["viewed_tenant"] = str(acme.pk)
    session.save()
    assert client.get("/t/acme/keys/new/").status_code == 200
    assert issuing.ApiKey.objects.count() == 0
