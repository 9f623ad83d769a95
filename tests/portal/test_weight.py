"""How much a page weighs: with its styles and scripts under 150 KB at the first view, however long its list is."""

import pytest
from django.test import Client

from accounts.models import Membership, Tenant, User
from accounts.roles import Role
from tests.bench.portal_pages import PAGES, fill, weight
from tests.portal.furnished import furnish, places

pytestmark = pytest.mark.django_db
MOST_BYTES = 150_000


@pytest.mark.usefixtures("valkey")
def test_the_first_view_of_a_long_list_is_light(client: Client) -> None:
    client.force_login(fill())
    for page in PAGES:
        plain, sent = weight(client, page)
        assert sent < plain < MOST_BYTES, (page, plain, sent)


@pytest.mark.usefixtures("valkey")
def test_the_first_view_of_every_page_is_light(client: Client, acme: Tenant, operator: User) -> None:
    things = furnish(acme)
    Membership.objects.create(tenant=acme, user=operator, role=Role.OWNER)
    client.force_login(operator)
    for place in places():
        if "GET" not in place.methods or place.access in ("public", "internal"):
            continue
        url = place.url(things)
        answer = client.get(url)
        if answer.status_code == 200 and answer["content-type"].startswith("text/html"):
            plain, sent = weight(client, url)
            assert sent < MOST_BYTES, (url, plain, sent)


def test_a_static_file_is_sent_compressed_and_known_again(client: Client) -> None:
    plain = client.get("/static/portal/base.css")
    answer = client.get("/static/portal/base.css", headers={"accept-encoding": "gzip, br"})
    assert answer["content-encoding"] == "gzip"
    assert answer["vary"] == plain["vary"] == "Accept-Encoding"
    assert answer["etag"] == plain["etag"]
    assert int(answer["content-length"]) == len(answer.content) < len(plain.content)
    again = client.get("/static/portal/base.css", headers={"accept-encoding": "gzip", "if-none-match": answer["etag"]})
    assert again.status_code == 304


def test_a_stream_goes_as_it_is(client: Client, acme: Tenant, acme_admin: User) -> None:
    client.force_login(acme_admin)
    answer = client.get("/t/acme/audit/csv/", headers={"accept-encoding": "gzip"})
    assert answer.streaming
    assert not answer.has_header("content-encoding")
