"""The playground's pages and the key behind them; that a call streams, is tests/e2e/test_playground.py's to show."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape

import orjson
import pytest
from django.core.cache import cache
from django.test import Client, override_settings
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from accounts import issuing, keys, playground
from accounts.models import ApiKey, AuditEvent, Membership, Tenant, User
from accounts.roles import Role
from gateway.models import Deployment, ModelAlias
from portal.playground import key_text, turns
from portal.tasks import end_playground_keys

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
MARKUP = "<script>alert(1)</script>"
NOWHERE = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture(autouse=True)
def general(acme: Tenant) -> ModelAlias:
    deployment = Deployment.objects.create(name="tiny", served_model="tiny")
    ModelAlias.objects.create(tenant=acme, name="second", deployment=deployment)
    return ModelAlias.objects.create(tenant=acme, name="general", deployment=deployment)


@pytest.fixture
def developer(signed_in: SignedIn, acme_developer: User) -> Client:
    return signed_in(acme_developer)


def call(**fields: object) -> dict[str, object]:
    return {"alias": "general", "stream": "on", "role": ["user"], "text": ["Hello"], **fields}


def page_of(client: Client, path: str = "", status: int = 200, **fields: object) -> str:
    url = f"/t/acme/playground/{path}"
    answer = client.post(url, fields) if fields else client.get(url)
    assert answer.status_code == status
    return unescape(answer.content.decode())


def key_of(person: User) -> ApiKey:
    return ApiKey.objects.get(created_by=person, is_playground=True, revoked_at=None)


def test_a_viewer_has_no_playground(signed_in: SignedIn, acme_viewer: User, acme_developer: User) -> None:
    client = signed_in(acme_viewer)
    page_of(client, status=403)
    page_of(client, "call/", status=403, **call())
    page_of(client, "code/", status=403, **call())
    assert "/t/acme/playground/" not in client.get("/t/acme/keys/").content.decode()
    assert "/t/acme/playground/" in signed_in(acme_developer).get("/t/acme/keys/").content.decode()


def test_a_strangers_playground_is_404(signed_in: SignedIn, globex_admin: User) -> None:
    client = signed_in(globex_admin)
    page_of(client, status=404)
    page_of(client, "call/", status=404, **call())
    assert not ApiKey.objects.filter(is_playground=True).exists()


def test_an_operator_who_views_as_the_tenant_can_send_nothing(signed_in: SignedIn, operator: User, acme: Tenant) -> None:
    client = signed_in(operator)
    client.post("/admin/tenants/acme/view/")
    page_of(client, status=403)
    page_of(client, "call/", status=403, **call())


def test_the_page_says_whose_calls_they_are_and_offers_the_aliases(developer: Client, acme_developer: User) -> None:
    page = page_of(developer)
    assert f"Playground: {acme_developer.email}" in page
    assert re.findall(r'<option value="(\w+)"', page.split('name="compare"')[0]) == ["general", "second"]
    assert 'value="second" selected' in page_of(developer, "?alias=second")


def test_a_tenant_without_an_alias_is_led_to_them(developer: Client) -> None:
    ModelAlias.objects.all().delete()
    page = page_of(developer)
    assert "No alias yet" in page
    assert 'id="playground"' not in page


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"text": [""]}, "Write a message to send."),
        ({"temperature": "hot"}, "Enter a number."),
        ({"shape": "json_schema"}, "Write the schema"),
        ({"shape": "json_schema", "schema": "{"}, "This is no JSON"),
        ({"more": "[1]"}, "Write a JSON object"),
        ({"role": ["root"]}, "each of the user or the assistant"),
        ({"alias": "strangers"}, "strangers"),
    ],
)
def test_what_will_not_do_is_told_at_its_field_and_kept(developer: Client, fields: dict[str, object], told: str) -> None:
    sent = call(system="You are brief.", **fields)
    page = page_of(developer, **sent)
    assert told in page
    assert "You are brief." in page
    assert page_of(developer, "call/", status=422, **sent)
    assert page_of(developer, "code/", status=204, **sent) == ""


def test_messages_are_added_taken_away_and_gone_on_with(developer: Client) -> None:
    def texts(**fields: object) -> list[str]:
        return re.findall(r'name="text"[^>]*>\n([^<]*)<', page_of(developer, **fields))

    assert texts(**call(do="add")) == ["Hello", ""]
    assert texts(**call(do="remove-0", role=["user", "assistant"], text=["Hello", "Hi"])) == ["Hi"]
    assert texts(**call(do="remove-0")) == [""]
    assert texts(**call(do="continue-a", **{"answer-a": "Good day"})) == ["Hello", "Good day", ""]
    assert texts(**call(do="begin")) == [""]
    assert "0.7" in page_of(developer, **call(do="add", temperature="0.7"))


def test_the_same_call_stands_there_for_programs(developer: Client) -> None:
    fields = call(
        system="Be brief.", temperature="0.5", stop="END\nSTOP", seed="7", more='{"top_k": 20}', text=["It's <b>", "", "ok"],
        role=["user", "assistant", "user"], program="python",
    )  # fmt: skip
    page = page_of(developer, "code/", **fields)
    assert 'value="python" autocomplete="off" checked' in page
    python = re.search(r'id="snippet-python">(.*?)</code>', page, re.DOTALL)
    assert python is not None
    compile(python[1], "snippet", "exec")
    assert "temperature=0.5" in python[1]
    assert "extra_body={" in python[1]
    assert "stream=True" in python[1]
    javascript = re.search(r"completions\.create\((\{.*?\n\})\);", page, re.DOTALL)
    assert javascript is not None
    assert orjson.loads(javascript[1]) == {
        "model": "general",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "It's <b>"},
            {"role": "user", "content": "ok"},
        ],
        "temperature": 0.5,
        "seed": 7,
        "stop": ["END", "STOP"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_k": 20,
    }
    assert "sk-sekisho-" not in page


def test_markup_in_a_message_stays_text(developer: Client) -> None:
    for path, fields in (("", call(do="add")), ("code/", call())):
        answer = developer.post(f"/t/acme/playground/{path}", fields | {"text": [MARKUP]})
        assert MARKUP not in answer.content.decode()
        assert "alert(1)" in answer.content.decode()


def test_a_schema_becomes_the_response_format(developer: Client) -> None:
    page = page_of(developer, "code/", **call(shape="json_schema", schema='{"type": "object"}'))
    assert '"response_format"' in page
    assert '"schema": {\n        "type": "object"' in page


@override_settings(GATEWAY_INNER_URL=NOWHERE)
def test_a_gateway_that_does_not_answer_is_told_and_the_turn_is_free_again(developer: Client, acme_developer: User) -> None:
    for _ in range(turns.AT_ONCE + 1):
        answer = developer.post("/t/acme/playground/call/", call())
        assert answer.status_code == 502
        assert "did not answer" in answer.json()["problem"]
    assert "did not answer" in page_of(developer, **call())
    assert turns.take(acme_developer, for_s=1) is not None


@override_settings(GATEWAY_INNER_URL=NOWHERE)
def test_two_answers_a_person_at_once_and_no_more(developer: Client, acme_developer: User, acme_admin: User) -> None:
    held = [turns.take(acme_developer, for_s=60) for _ in range(turns.AT_ONCE)]
    assert all(held)
    assert developer.post("/t/acme/playground/call/", call()).status_code == 429
    assert "running already" in page_of(developer, **call())
    other = turns.take(acme_admin, for_s=60)
    assert other is not None
    other.release()
    held[0].release()  # type: ignore[union-attr]
    held[0].release()  # type: ignore[union-attr] # twice frees one
    assert developer.post("/t/acme/playground/call/", call()).status_code == 502
    held[1].release()  # type: ignore[union-attr]


def test_the_key_is_short_lived_reused_and_in_no_table(acme: Tenant, acme_developer: User) -> None:
    text = key_text.text_for(acme, acme_developer, actor=acme_developer)
    assert key_text.text_for(acme, acme_developer, actor=acme_developer) == text
    key = key_of(acme_developer)
    assert key.lookup_id in text
    assert (key.scopes, key.aliases, key.name) == (["chat"], None, f"Playground: {acme_developer.email}")
    assert key.expires_at is not None
    assert key.expires_at <= timezone.now() + playground.LIFE
    assert text not in str(cache.get(f"playground:key:{acme.pk}:{acme_developer.pk}"))


def test_one_row_a_person_however_often_its_text_is_renewed_and_one_event_a_day(acme: Tenant, acme_developer: User) -> None:
    texts = set()
    for _ in range(3):
        texts.add(key_text.text_for(acme, acme_developer, actor=acme_developer))
        key_text.forget(acme, acme_developer)
    assert len(texts) == 3
    assert AuditEvent.objects.filter(verb="key.played").count() == 1
    ApiKey.objects.update(expires_at=timezone.now() - timedelta(days=1))
    text = key_text.text_for(acme, acme_developer, actor=acme_developer)
    event = AuditEvent.objects.filter(verb="key.played").latest("sequence")
    assert AuditEvent.objects.filter(verb="key.played").count() == 2
    assert (event.actor, event.tenant) == (acme_developer, acme)
    pepper_text = key_of(acme_developer)
    assert pepper_text.hint == keys.hint(text)


def test_a_revoked_one_is_followed_by_another(acme: Tenant, acme_developer: User, acme_admin: User) -> None:
    key_text.text_for(acme, acme_developer, actor=acme_developer)
    old = key_of(acme_developer)
    issuing.revoke(old, actor=acme_admin)
    key_text.forget(acme, acme_developer)
    key_text.text_for(acme, acme_developer, actor=acme_developer)
    assert key_of(acme_developer) != old


def test_a_suspended_tenant_gets_none(developer: Client, acme: Tenant) -> None:
    Tenant.objects.update(is_active=False)
    answer = developer.post("/t/acme/playground/call/", call())
    assert answer.status_code == 409
    assert "suspended" in answer.json()["problem"]
    assert not ApiKey.objects.exists()


def test_it_can_be_neither_changed_nor_rotated(acme: Tenant, acme_developer: User) -> None:
    key_text.text_for(acme, acme_developer, actor=acme_developer)
    key = key_of(acme_developer)
    with pytest.raises(issuing.IssuingError):
        issuing.rotate(key, overlap=timedelta(), actor=acme_developer)
    with pytest.raises(issuing.IssuingError):
        issuing.revise(key, issuing.Terms("mine"), actor=acme_developer)


def test_the_list_of_keys_has_them_apart(signed_in: SignedIn, acme: Tenant, acme_developer: User, acme_key: object) -> None:
    key_text.text_for(acme, acme_developer, actor=acme_developer)
    client = signed_in(acme_developer)
    name = f"Playground: {acme_developer.email}"
    assert name not in client.get("/t/acme/keys/").content.decode()
    assert name in client.get("/t/acme/keys/?state=playground").content.decode()
    page = client.get(f"/t/acme/keys/{key_of(acme_developer).pk}/").content.decode()
    assert "Of the playground" in page
    assert "/edit/" not in page
    assert "/rotate/" not in page


def test_keys_of_those_who_left_and_idle_ones_are_revoked(acme: Tenant, acme_developer: User, acme_admin: User) -> None:
    third = User.objects.create_user("third@acme.example")
    Membership.objects.create(tenant=acme, user=third, role=Role.DEVELOPER)
    for person in (acme_developer, acme_admin, third):
        key_text.text_for(acme, person, actor=person)
    Membership.objects.filter(user=acme_developer).update(role=Role.VIEWER)
    ApiKey.objects.filter(created_by=third).update(expires_at=timezone.now() - playground.IDLE)
    end_playground_keys()
    left = ApiKey.objects.filter(is_playground=True, revoked_at=None)
    assert [key.created_by for key in left] == [acme_admin]
    assert AuditEvent.objects.filter(verb="key.revoked", actor_label="playground").count() == 2


def test_a_call_that_was_never_made_has_no_story(developer: Client) -> None:
    page_of(developer, "calls/0193b5e0-0000-7000-8000-000000000000/", status=404)


def test_the_page_asks_few_questions(
    developer: Client, acme: Tenant, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    deployment = Deployment.objects.get()
    ModelAlias.objects.bulk_create(ModelAlias(tenant=acme, name=f"m{n}", deployment=deployment) for n in range(100))
    with django_assert_max_num_queries(20):
        page_of(developer)
