"""The docs of a tenant: generated from the tables the gateway runs by, and whole in both languages."""

import ast
import json
import re
from collections.abc import Callable
from html import unescape

import pytest
from django.test import Client
from django.urls import get_resolver, resolve
from django.utils import translation
from pytest_django import DjangoAssertNumQueries

from accounts.models import Tenant, User
from gateway import exceptions
from gateway.api import response_headers
from gateway.api.fields import FIELDS
from gateway.models import Deployment, ModelAlias
from portal import manual, snippets
from portal.remedies import REMEDIES

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
URL = "/t/acme/docs/"


@pytest.fixture
def general(acme: Tenant) -> ModelAlias:
    deployment = Deployment.objects.create(name="tiny-deployment", served_model="tiny-served")
    return ModelAlias.objects.create(
        tenant=acme,
        name="general",
        deployment=deployment,
        max_output_tokens=4096,
        grants=["chat_template"],
        display_name={"en": "General", "ja": "汎用"},
    )


@pytest.fixture
def viewer(signed_in: SignedIn, acme_viewer: User) -> Client:
    return signed_in(acme_viewer)


def page_of(client: Client, **options: object) -> str:
    answer = client.get(URL, **options)
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def all_errors(error: type[exceptions.GatewayError]) -> set[type[exceptions.GatewayError]]:
    return {error}.union(*(all_errors(kind) for kind in error.__subclasses__()))


def test_every_code_of_the_tree_has_a_remedy_in_both_languages() -> None:
    for code in {error.code for error in all_errors(exceptions.GatewayError)}:
        said = REMEDIES[code]
        for words in (said.why, said.what_to_do):
            with translation.override("en"):
                english = str(words)
            with translation.override("ja"):
                assert str(words) != english, code


def test_the_error_table_has_every_code_a_client_can_see(viewer: Client) -> None:
    codes = {error.code: error.status for error in all_errors(exceptions.GatewayError)}
    del codes["client_left"]
    assert {row.code: row.status for row in manual.error_rows()} == codes
    page = page_of(viewer)
    for code in codes:
        assert f'id="error-{code}"' in page
    assert "client_left" not in page


def test_every_header_the_gateway_tells_of_is_explained(viewer: Client) -> None:
    assert set(manual.HEADERS) == set(response_headers.TOLD)
    page = page_of(viewer)
    assert all(f"<code>{name}</code>" in page for name in response_headers.TOLD)


def test_every_endpoint_of_the_gateway_is_listed() -> None:
    for call in manual.CALLS:
        method, path = call.address.split()
        view = resolve(path.replace("{", "").replace("}", ""), urlconf="gateway.urls").func.view_class
        assert hasattr(view, method.lower())
        assert view.required_scope == call.scope
    listed = {resolve(call.address.split()[1], urlconf="gateway.urls").url_name for call in manual.CALLS}
    assert listed == {pattern.name for pattern in get_resolver("gateway.urls").url_patterns if "v1/" in str(pattern.pattern)}


def test_every_request_field_is_in_one_group(viewer: Client) -> None:
    names = [name for group in manual.field_groups() for name in group.names]
    assert sorted(names) == sorted(FIELDS)
    assert "temperature" in page_of(viewer)


@pytest.mark.usefixtures("general")
def test_the_aliases_tell_what_each_accepts_and_not_what_backs_them(viewer: Client) -> None:
    page = page_of(viewer)
    assert all(told in page for told in ("general", "General", "4,096 tokens", "chat_template"))
    assert "tiny" not in page


@pytest.mark.usefixtures("general")
def test_the_snippets_name_this_tenants_alias(viewer: Client) -> None:
    page = page_of(viewer)
    shown = dict(re.findall(r'<code id="snippet-([a-z-]*)">([^<]*)</code>', page))
    assert set(shown) == {"curl", "python", "javascript", "open-webui", "langchain"}
    for name in ("python", "langchain"):
        ast.parse(shown[name])
        assert 'os.environ["SEKISHO_API_KEY"]' in shown[name]
    assert all('"general"' in shown[name] for name in ("curl", "python", "javascript", "langchain"))
    assert "/v1" in shown["open-webui"]


def test_open_webui_takes_whatever_a_key_holds() -> None:
    said = snippets.open_webui("http://a.example/v1", key="it's; $HOME")
    assert """export OPENAI_API_KEY='it'"'"'s; $HOME'""" in said
    assert 'export OPENAI_API_KEY="$SEKISHO_API_KEY"' in snippets.open_webui("http://a.example/v1")


@pytest.mark.parametrize(("dialect", "status", "member"), [("openai", 404, "error"), ("detail", 400, "detail")])
def test_the_example_is_in_the_tenants_dialect(viewer: Client, dialect: str, status: int, member: str) -> None:
    Tenant.objects.update(error_dialect=dialect)
    page = page_of(viewer)
    found = re.search(r"\(status (\d+)\).*?<code>(\{.*?\})</code>", page, re.DOTALL)
    assert found is not None
    assert int(found[1]) == status
    assert set(json.loads(found[2])) == {member}


def test_a_tenant_without_alias_reads_what_is_missing(viewer: Client) -> None:
    assert "No alias yet" in page_of(viewer)


def test_a_strangers_docs_are_404(signed_in: SignedIn, globex_admin: User, acme: Tenant) -> None:
    assert signed_in(globex_admin).get(URL).status_code == 404


def test_docs_of_many_aliases_cost_the_same(
    viewer: Client, acme: Tenant, general: ModelAlias, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(30):
        ModelAlias.objects.create(tenant=acme, name=f"alias-{number:02}", deployment=general.deployment)
    with django_assert_max_num_queries(8):
        page = page_of(viewer)
    assert "All aliases, with limits" in page


def test_stored_markup_stays_text(viewer: Client, general: ModelAlias) -> None:
    evil = "<script>alert(1)</script>"
    ModelAlias.objects.update(description={"en": evil}, display_name={"en": evil})
    Tenant.objects.update(name=evil)
    assert evil not in viewer.get(URL).content.decode()


@pytest.mark.usefixtures("general")
def test_the_page_is_japanese_where_it_is_asked_to_be(viewer: Client) -> None:
    with translation.override("en"):
        page = page_of(viewer, headers={"accept-language": "ja"})
    assert all(told in page for told in ("汎用", "再試行", "エラー", "応答ヘッダー"))
