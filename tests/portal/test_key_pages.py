"""The pages of API keys: found, made, shown once, changed, rotated, revoked; and who may not."""

import ast
import re
import shlex
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone, translation

from accounts import issuing, keys
from accounts.models import ApiKey, AuditEvent, Tenant, User
from gateway.config import policies
from gateway.models import Deployment, ModelAlias
from tests.e2e.conftest import BY
from tests.portal.paging import link, turned

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
RULES = [{"kind": "keywords", "words": ["ALPHA-77"], "where": ["input"], "action": "block"}]
TERMS = {"name": "batch", "scopes": ["chat", "models"], "reach": "all", "networks": "", "expiry": "90"}


@pytest.fixture
def general(acme: Tenant) -> ModelAlias:
    deployment = Deployment.objects.create(name="tiny", served_model="tiny")
    return ModelAlias.objects.create(tenant=acme, name="general", deployment=deployment)


@pytest.fixture
def developer(signed_in: SignedIn, acme_developer: User) -> Client:
    return signed_in(acme_developer)


@pytest.fixture
def admin(signed_in: SignedIn, acme_admin: User) -> Client:
    return signed_in(acme_admin)


def issue(tenant: Tenant, name: str, **terms: Any) -> ApiKey:
    return issuing.issue(tenant, issuing.Terms(name, **terms), actor=None, actor_label="test")[0]


def page_of(client: Client, path: str = "", **options: Any) -> str:
    answer = client.get(f"/t/acme/keys/{path}", **options)
    assert answer.status_code == 200
    return answer.content.decode()


def post(client: Client, path: str, **fields: Any) -> str:
    answer = client.post(f"/t/acme/keys/{path}", fields, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def names_of(page: str) -> list[str]:
    return re.findall(r"<strong>([^<]*)</strong></a>", page)


def shown_text(page: str) -> str:
    found = re.search(r'<code id="key-text">([^<]*)</code>', page)
    assert found is not None
    return found[1]


def test_list_tells_what_each_key_is(signed_in: SignedIn, acme: Tenant, acme_viewer: User, acme_admin: User) -> None:
    end = timezone.now() + timedelta(days=30)
    terms = issuing.Terms("batch", ["usage:tenant"], ["a", "b", "c", "d", "e"], expires_at=end, policies=["calm"])
    key, secret = issuing.issue(acme, terms, actor=acme_admin)
    page = page_of(signed_in(acme_viewer))
    local = end.astimezone(ZoneInfo("Asia/Tokyo"))
    told = text_of(page)
    for shown in ("batch", key.hint, acme_admin.email, "usage:tenant", "a b c and 2 more", "calm", "Not yet", "Active"):
        assert shown in told, shown
    assert f"{local:%H:%M}" in told
    assert "New key" not in told
    for hidden in (secret, secret[-36:], key.digest):
        assert hidden not in page


def test_keys_are_found_by_name_tail_and_state(developer: Client, acme: Tenant) -> None:
    first, second, gone, late = (issue(acme, name) for name in ("batch one", "batch two", "batch three", "other"))
    issuing.rotate(second, overlap=timedelta(days=1), **BY)
    issuing.revoke(gone, **BY)
    ApiKey.objects.filter(pk=late.pk).update(expires_at=timezone.now())
    for query, found in {
        "": ["batch one", "batch two", "batch two", "other", "batch three"],
        "q=BATCH": ["batch one", "batch two", "batch two", "batch three"],
        f"q={first.hint[-4:]}": ["batch one"],
        "state=active": ["batch one", "batch two"],
        "state=retiring": ["batch two"],
        "state=expired": ["other"],
        "state=revoked&q=batch": ["batch three"],
        "q=none-of-these": [],
    }.items():
        assert names_of(page_of(developer, f"?{query}")) == found, query
    assert "Show all keys" in page_of(developer, "?q=none-of-these")
    assert "field-error" in page_of(developer, "?state=mine&q=%00")


def test_filter_goes_along_from_page_to_page(
    developer: Client, acme: Tenant, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    for n in range(60):
        issue(acme, f"key-{n:02}")
    with django_assert_max_num_queries(10):
        page = page_of(developer, "?q=key&state=active")
    assert names_of(page) == [f"key-{n:02}" for n in range(25)]
    assert "60 in all" in page
    assert link(page, "next").startswith("?q=key&state=active&after=")
    third = turned(developer, "/t/acme/keys/", turned(developer, "/t/acme/keys/", page))
    assert names_of(third) == [f"key-{n:02}" for n in range(50, 60)]
    assert link(third, "next") == ""


def test_key_pasted_into_the_search_is_not_said_back(developer: Client, acme_key: tuple[ApiKey, str]) -> None:
    answer = developer.get("/t/acme/keys/", {"q": acme_key[1]}, follow=True)
    assert answer.redirect_chain == [("/t/acme/keys/", 302)]
    assert acme_key[1] not in answer.content.decode()
    assert "last four characters" in text_of(answer.content.decode())


def test_no_key_yet_says_what_to_do(signed_in: SignedIn, acme_developer: User, acme_viewer: User) -> None:
    assert "Make the first one" in page_of(signed_in(acme_developer))
    page = page_of(signed_in(acme_viewer))
    assert "Developers and admins of this tenant make them." in page
    assert "keys/new" not in page


@pytest.mark.usefixtures("general")
def test_made_key_is_as_the_form_says(admin: Client, acme: Tenant, acme_admin: User) -> None:
    calm = policies.create(acme, "calm", **BY)
    policies.save_draft(calm, RULES, **BY)
    policies.publish(calm, **BY)
    before = AuditEvent.objects.count()
    said = TERMS | {"reach": "some", "aliases": ["general"], "policies": ["calm"], "expiry": "date", "last_day": "2099-12-31"}
    page = post(admin, "new/", **said | {"networks": "192.0.2.0/24\n2001:db8::/32"})
    key = ApiKey.objects.get()
    assert (key.name, key.scopes, key.aliases, key.policies) == ("batch", ["chat", "models"], ["general"], ["calm"])
    assert key.networks == ["192.0.2.0/24", "2001:db8::/32"]
    assert key.expires_at is not None
    assert f"{key.expires_at.astimezone(ZoneInfo(acme.time_zone)):%Y-%m-%d %H:%M}" == "2099-12-31 23:59"
    assert key.created_by == acme_admin
    assert keys.hint(shown_text(page)) == key.hint
    event = AuditEvent.objects.order_by("sequence").last()
    assert event is not None
    assert (event.verb, event.actor) == ("key.issued", acme_admin)
    assert AuditEvent.objects.count() == before + 1


def test_form_says_in_words_before_anything_is_made(developer: Client, general: ModelAlias) -> None:
    begun = text_of(page_of(developer, "new/"))
    assert "chat with models · list the models it may call" in begun
    assert "By every alias of this tenant" in begun
    said = TERMS | {"name": "", "scopes": ["usage"], "reach": "some", "aliases": ["general"], "networks": "192.0.2.0/24"}
    page = text_of(post(developer, "new/", **said | {"expiry": "never", "say": "1"}))
    for words in ("It can: read its own usage", "alone: general", "networks: 192.0.2.0/24", "Without an end"):
        assert words in page, words
    assert not ApiKey.objects.exists()
    assert general.name in page


@pytest.mark.usefixtures("general")
def test_key_is_shown_once_and_kept_nowhere(developer: Client, caplog: pytest.LogCaptureFixture) -> None:
    answer = developer.post("/t/acme/keys/new/", TERMS)
    assert answer.status_code == 200
    assert "no-store" in answer["cache-control"]
    text = shown_text(answer.content.decode())
    assert keys.is_minted(text)
    key = ApiKey.objects.get()
    for path in ("", f"{key.pk}/", f"{key.pk}/edit/", f"{key.pk}/rotate/", f"{key.pk}/revoke/"):
        assert text not in page_of(developer, path), path
    assert text not in caplog.text
    assert text not in str(answer.headers) + str(developer.cookies)
    assert all(text not in str(session.get_decoded()) for session in Session.objects.all())
    assert all(text not in str([event.before, event.after, event.target]) for event in AuditEvent.objects.all())


def test_sending_the_form_again_makes_no_second_key(developer: Client) -> None:
    post(developer, "new/", **TERMS)
    assert "has a key of this name already" in text_of(post(developer, "new/", **TERMS))
    assert ApiKey.objects.count() == AuditEvent.objects.count() == 1


@pytest.mark.usefixtures("general")
def test_snippets_hold_key_url_and_alias(developer: Client, settings: Any) -> None:
    settings.GATEWAY_PUBLIC_URL = "https://llm.acme.example/"
    page = post(developer, "new/", **TERMS)
    text = shown_text(page)
    found = dict(re.findall(r'<code id="snippet-(\w+)">(.*?)</code>', page, re.DOTALL))
    arguments = shlex.split(unescape(found["curl"]).replace("\\\n", ""))
    assert arguments[:4] == ["curl", "https://llm.acme.example/v1/chat/completions", "-H", f"Authorization: Bearer {text}"]
    program = ast.unparse(ast.parse(unescape(found["python"])))
    assert f"base_url='https://llm.acme.example/v1', api_key='{text}'" in program
    assert "model='general'" in program
    assert f'apiKey: "{text}"' in unescape(found["javascript"])


@pytest.mark.usefixtures("general")
def test_key_that_may_not_chat_gets_no_example_of_it(developer: Client) -> None:
    page = post(developer, "new/", **TERMS | {"scopes": ["usage"]})
    assert "snippet-curl" not in page
    assert "Examples need an alias" in text_of(page)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": ""}, "This field is required"),
        ({"name": keys.mint()}, "do not put a key into it"),
        ({"name": "a\x00b"}, "Null characters"),
        ({"scopes": []}, "This field is required"),
        ({"scopes": ["root"]}, "root"),
        ({"reach": "some"}, "Choose one alias or more"),
        ({"reach": "some", "aliases": ["theirs"]}, "theirs"),
        ({"policies": ["no-such"]}, "no-such"),
        ({"networks": "192.0.2.0/24, localhost"}, "“localhost” is no network"),
        ({"expiry": "date"}, "Choose the last day"),
        ({"expiry": "date", "last_day": "2020-01-01"}, "This day is over"),
        ({"expiry": "date", "last_day": "9999-12-31"}, "less than or equal"),
        ({"expiry": "keep"}, "keep"),
    ],
)
@pytest.mark.usefixtures("general")
def test_what_cannot_be_is_told_and_nothing_typed_is_lost(
    admin: Client, globex: Tenant, wrong: dict[str, Any], told: str
) -> None:
    ModelAlias.objects.create(tenant=globex, name="theirs", deployment=Deployment.objects.get())
    page = post(admin, "new/", **{"networks": "198.51.100.0/24", **TERMS, **wrong})
    assert told in text_of(page)
    assert "field-error" in page
    if "name" not in wrong:
        assert 'value="batch"' in page
    if "networks" in wrong:
        assert "192.0.2.0/24, localhost" in text_of(page)
    assert not ApiKey.objects.exists()


def test_policy_of_a_stranger_is_not_offered(developer: Client, globex: Tenant) -> None:
    theirs = policies.create(globex, "theirs", **BY)
    platforms = policies.create(None, "platforms", is_everywhere=True, **BY)
    for policy in (theirs, platforms):
        policies.save_draft(policy, RULES, **BY)
        policies.publish(policy, **BY)
    page = text_of(page_of(developer, "new/"))
    assert "theirs" not in page
    assert "platforms (applies to every call anyway)" in page


def test_suspended_tenant_gets_no_key_and_says_so(developer: Client, acme: Tenant) -> None:
    Tenant.objects.filter(pk=acme.pk).update(is_active=False)
    assert "suspended gets no keys" in text_of(page_of(developer, "new/"))
    assert "suspended gets no keys" in text_of(post(developer, "new/", **TERMS))
    assert not ApiKey.objects.exists()


def test_key_is_edited_and_keeps_what_is_not_touched(developer: Client, acme: Tenant) -> None:
    end = timezone.now() + timedelta(days=3)
    key = issue(acme, "ci", aliases=["gone"], policies=["gone-too"], error_dialect="both", expires_at=end)
    page = page_of(developer, f"{key.pk}/edit/")
    assert len(re.findall(r'value="(?:gone|gone-too|keep|some)"[^>]* checked', page)) == 4
    said = TERMS | {"name": "ci", "reach": "some", "aliases": ["gone"], "policies": ["gone-too"], "expiry": "keep"}
    assert "Nothing was changed." in post(developer, f"{key.pk}/edit/", **said)
    assert "it counts for every call" in post(developer, f"{key.pk}/edit/", **said | {"name": "nightly", "reach": "all"})
    key.refresh_from_db()
    assert (key.name, key.aliases, key.policies, key.error_dialect) == ("nightly", None, ["gone-too"], "both")
    assert key.expires_at == end
    assert AuditEvent.objects.filter(verb="key.changed").count() == 1


def test_who_manages_no_policies_takes_none_off_a_key(developer: Client, acme: Tenant) -> None:
    calm = policies.create(acme, "calm", **BY)
    policies.save_draft(calm, RULES, **BY)
    policies.publish(calm, **BY)
    key = issue(acme, "batch", policies=["calm"])
    post(developer, f"{key.pk}/edit/", **TERMS | {"name": "other", "expiry": "never", "policies": []})
    key.refresh_from_db()
    assert (key.name, key.policies) == ("other", ["calm"])


def test_name_that_is_taken_is_refused_in_an_edit(developer: Client, acme: Tenant) -> None:
    key, _other = issue(acme, "ci"), issue(acme, "batch")
    page = text_of(post(developer, f"{key.pk}/edit/", **TERMS))
    assert "has a key of this name already" in page
    assert "Edit ci" in page


def test_rotation_tells_the_last_use_first_and_shows_the_new_key(developer: Client, acme: Tenant) -> None:
    key = issue(acme, "ci")
    ApiKey.objects.filter(pk=key.pk).update(last_used_at=timezone.now() - timedelta(minutes=3, seconds=5))
    asked = text_of(page_of(developer, f"{key.pk}/rotate/"))
    assert f"The key {key.hint} was last used 3 minutes ago" in asked
    assert asked.index("was last used") < asked.index("works for 7 more days")
    page = post(developer, f"{key.pk}/rotate/", overlap=168)
    key.refresh_from_db()
    assert key.successor is not None
    assert keys.hint(shown_text(page)) == key.successor.hint
    assert key.expires_at is not None
    assert timedelta(days=6) < key.expires_at - timezone.now() <= timedelta(days=7)
    assert f"The old key {key.hint} works until" in text_of(page)
    assert "Only an active key can be rotated" in text_of(post(developer, f"{key.pk}/rotate/", overlap=1))
    assert AuditEvent.objects.filter(verb="key.rotated").count() == 1
    for one, other in ((key, key.successor), (key.successor, key)):
        assert f"/t/acme/keys/{other.pk}/" in page_of(developer, f"{one.pk}/")


def test_rotation_without_overlap_says_the_old_key_is_refused(developer: Client, acme: Tenant) -> None:
    key = issue(acme, "ci")
    assert "is refused already" in text_of(post(developer, f"{key.pk}/rotate/", overlap=0))
    assert "field-error" in post(developer, f"{issue(acme, 'other').pk}/rotate/", overlap=2)


def test_revocation_tells_what_follows_and_asks_for_the_name(developer: Client, acme: Tenant) -> None:
    key = issue(acme, "ci")
    asked = text_of(page_of(developer, f"{key.pk}/revoke/"))
    assert "every call with this key is refused" in asked
    assert "was not used yet" in asked
    assert "This is not its name" in text_of(post(developer, f"{key.pk}/revoke/", name="no"))
    assert ApiKey.objects.usable().exists()
    page = text_of(post(developer, f"{key.pk}/revoke/", name="ci"))
    assert "refused from now on" in page
    assert "What this key could do" in page
    assert not ApiKey.objects.usable().exists()
    assert "revoked before" in text_of(post(developer, f"{key.pk}/revoke/", name="ci"))
    assert AuditEvent.objects.filter(verb="key.revoked").count() == 1
    assert "keeps its terms" in text_of(page_of(developer, f"{key.pk}/edit/", follow=True))


def test_viewer_may_look_and_not_change(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    key, client = issue(acme, "ci"), signed_in(acme_viewer)
    page = page_of(client, f"{key.pk}/")
    assert not re.search(r'href="[^"]*/(edit|rotate|revoke)/"', page)
    for path in ("new/", f"{key.pk}/edit/", f"{key.pk}/rotate/", f"{key.pk}/revoke/"):
        assert client.get(f"/t/acme/keys/{path}").status_code == 403, path
        assert client.post(f"/t/acme/keys/{path}", TERMS | {"overlap": 0}).status_code == 403, path
    assert ApiKey.objects.usable().count() == 1


def test_strangers_key_is_a_404(developer: Client, globex: Tenant) -> None:
    theirs = issue(globex, "theirs")
    for tenant in ("acme", "globex"):
        for path in ("", "edit/", "rotate/", "revoke/"):
            address = f"/t/{tenant}/keys/{theirs.pk}/{path}"
            assert developer.get(address).status_code == 404, address
            if path:
                assert developer.post(address, TERMS | {"overlap": 0, "name": "theirs"}).status_code == 404, address
    assert developer.get(f"/t/acme/keys/{uuid4()}/").status_code == 404
    assert developer.get("/t/globex/keys/").status_code == 404
    assert "theirs" not in page_of(developer)
    assert ApiKey.objects.usable().count() == 1


def test_names_are_escaped(developer: Client, acme: Tenant) -> None:
    evil = "<script>alert(1)</script>"
    key = issue(acme, evil)
    for path in ("", f"{key.pk}/", f"{key.pk}/edit/", f"{key.pk}/rotate/", f"{key.pk}/revoke/"):
        assert evil not in page_of(developer, path), path


@pytest.mark.usefixtures("general")
def test_pages_are_japanese_where_they_are_asked_to_be(developer: Client, acme: Tenant) -> None:
    with translation.override("en"):  # what a request leaves active ends here
        key = issue(acme, "ci")
        for path in ("", "new/", f"{key.pk}/", f"{key.pk}/edit/", f"{key.pk}/rotate/", f"{key.pk}/revoke/"):
            page = page_of(developer, path, headers={"accept-language": "ja"})
            assert '<html lang="ja"' in page
            assert "キー" in page
        made = developer.post("/t/acme/keys/new/", TERMS, headers={"accept-language": "ja"}).content.decode()
        assert "表示されるのは今回だけです" in made
