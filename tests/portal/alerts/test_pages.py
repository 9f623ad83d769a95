"""The pages of alerts: rules and webhooks made, changed and deleted by who may; deliveries; and everybody's notifications."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from accounts.models import AuditEvent, Tenant, User
from gateway.config import encryption
from portal.alerts import hooks, rules, signing
from portal.alerts.models import Alert, AlertRule, Delivery, Notice, Webhook
from tests.e2e.conftest import BY

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
HOOK = {"name": "ops", "url": "https://hooks.example.com/T0/secret-path"}
RULE: dict[str, Any] = {
    "name": "Batch", "thresholds": ["50", "100"], "limits": ["tokens_per_day"], "roles": ["owner"], "people": "",
    "sends_mail": "on", "is_active": "on",
}  # fmt: skip
FACTS = {
    "limit": "tokens_per_day", "of": "tenant", "of_id": "x", "of_name": "Acme", "used": 812, "max": 1000, "percent": 81,
    "mode": "enforce", "is_refusing": False, "resets_s": 1_800_000_000,
}  # fmt: skip


@pytest.fixture
def admin(signed_in: SignedIn, acme_admin: User) -> Client:
    return signed_in(acme_admin)


@pytest.fixture
def ops(acme: Tenant) -> tuple[Webhook, str]:
    return hooks.create(acme, HOOK["name"], HOOK["url"], **BY)


def fired(tenant: Tenant | None, *told: User, subject: str = "x") -> Alert:
    alert = Alert.objects.create(
        tenant=tenant, kind="limit", subject=subject, threshold=80, window="x", facts=FACTS, fired_at=timezone.now()
    )
    Notice.objects.bulk_create(Notice(alert=alert, user=user) for user in told)
    return alert


def sent(webhook: Webhook, **state: Any) -> Delivery:
    now = timezone.now()
    return Delivery.objects.create(tenant=webhook.tenant, webhook=webhook, created_at=now, next_at=now, give_up_at=now, **state)


def page_of(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return answer.content.decode()


def post(client: Client, path: str, status: int = 200, **fields: Any) -> str:
    answer = client.post(path, fields, follow=True)
    assert answer.status_code == status
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def last_event() -> AuditEvent:
    return AuditEvent.objects.latest("sequence")


def test_a_new_tenant_sees_its_rules_and_what_to_do_next(admin: Client) -> None:
    page = text_of(page_of(admin, "/t/acme/alerts/"))
    for shown in ("A limit is nearly used up", "80%, 100%", "7, 3, 1 days before", "Owner, Admin", "and who made the key"):
        assert shown in page, shown
    assert "Nothing has fired yet" in page
    assert "No webhook yet" in page
    assert "No mail server is configured" in page


def test_what_fired_is_listed_and_what_is_not_over_can_be_told_apart(admin: Client, acme: Tenant) -> None:
    alert = fired(acme)
    page = text_of(page_of(admin, "/t/acme/alerts/?state=open"))
    assert "80% used: Tokens per day (the whole tenant)" in page
    assert "812 of 1,000 are used (81%)." in page
    assert "Warning" in page
    Alert.objects.filter(pk=alert.pk).update(ended_at=timezone.now())
    assert "Nothing is wrong now" in page_of(admin, "/t/acme/alerts/?state=open")
    assert "over since" in page_of(admin, "/t/acme/alerts/")


def test_viewer_sees_rules_and_hosts_and_no_address(signed_in: SignedIn, acme_viewer: User, ops: tuple[Webhook, str]) -> None:
    viewer = signed_in(acme_viewer)
    page = page_of(viewer, "/t/acme/alerts/")
    assert "https://hooks.example.com/***" in page
    assert "secret-path" not in page
    assert "New rule" not in page
    assert viewer.get(f"/t/acme/alerts/webhooks/{ops[0].pk}/").status_code == 403
    assert viewer.post("/t/acme/alerts/rules/new/?kind=limit", RULE).status_code == 403


def test_rule_is_made_as_the_form_says(admin: Client, acme: Tenant, acme_developer: User, ops: tuple[Webhook, str]) -> None:
    assert "What shall it watch?" in page_of(admin, "/t/acme/alerts/rules/new/")
    said = RULE | {"people": f"{acme_developer.email}\n", "webhooks": [str(ops[0].pk)]}
    post(admin, "/t/acme/alerts/rules/new/?kind=limit", **said)
    rule = AlertRule.objects.get(name="Batch")
    assert (rule.kind, rule.thresholds, rule.limits, rule.roles) == ("limit", [50, 100], ["tokens_per_day"], ["owner"])
    assert list(rule.people.all()) == [acme_developer]
    assert list(rule.webhooks.all()) == [ops[0]]
    event = last_event()
    assert (event.verb, event.tenant, event.after["people"]) == ("alert_rule.created", acme, [acme_developer.email])


@pytest.mark.parametrize(
    ("kind", "said", "told"),
    [
        ("limit", {"thresholds": []}, "Choose one or more."),
        ("limit", {"thresholds": ["60"]}, "60"),
        ("limit", {"limits": []}, "Choose one limit or more."),
        ("limit", {"name": "a\x07"}, "Use no control characters."),
        ("limit", {"people": "stranger@globex.example"}, "No member of this tenant: stranger@globex.example."),
        ("limit", {"webhooks": ["0199c0de-0000-7000-8000-000000000001"]}, "0199c0de"),
        ("limit", {"roles": ["root"]}, "root"),
        ("error_rate", {"threshold": "0", "minutes": "10", "least_calls": "1"}, "greater than or equal to 1"),
        ("error_rate", {"threshold": "5", "minutes": "90", "least_calls": "1"}, "less than or equal to 60"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_typed_is_lost(
    admin: Client, ops: tuple[Webhook, str], kind: str, said: dict[str, Any], told: str
) -> None:
    before = AlertRule.objects.count()
    page = post(admin, f"/t/acme/alerts/rules/new/?kind={kind}", **RULE | {"name": "My rule"} | said)
    assert told in text_of(page)
    if "name" not in said:
        assert 'value="My rule"' in page
    assert AlertRule.objects.count() == before


def test_a_name_is_given_once(admin: Client) -> None:
    post(admin, "/t/acme/alerts/rules/new/?kind=limit", **RULE)
    assert "a rule of this name already" in post(admin, "/t/acme/alerts/rules/new/?kind=limit", **RULE)


def test_rule_is_changed_rests_and_goes_with_one_event_each(admin: Client, acme: Tenant) -> None:
    rule = acme.alert_rules.get(kind="limit")
    fired(acme)
    Alert.objects.update(rule=rule)
    before = AuditEvent.objects.count()
    said = RULE | {"name": "", "thresholds": ["80", "100"], "roles": ["owner", "admin"]}
    said["limits"] = sorted(rule.limits)
    path = f"/t/acme/alerts/rules/{rule.pk}/"
    assert "Nothing was changed." in post(admin, path, **said)
    assert AuditEvent.objects.count() == before
    resting = {name: value for name, value in said.items() if name != "is_active"}
    post(admin, path, **resting)
    event = last_event()
    assert (event.verb, event.before, event.after) == ("alert_rule.changed", {"is_active": True}, {"is_active": False})
    assert Alert.objects.get().ended_at is not None
    assert "Resting" in page_of(admin, "/t/acme/alerts/")
    post(admin, f"{path}delete/")
    assert last_event().verb == "alert_rule.deleted"
    assert AuditEvent.objects.count() == before + 2
    assert "80% used" in page_of(admin, "/t/acme/alerts/")


def test_secret_of_a_webhook_is_shown_once_and_kept_nowhere(admin: Client, caplog: pytest.LogCaptureFixture) -> None:
    page = post(admin, "/t/acme/alerts/webhooks/new/", **HOOK)
    found = re.search(r'<code id="secret-text">(whsec_[^<]+)</code>', page)
    assert found is not None
    webhook = Webhook.objects.get()
    assert encryption.decrypt(webhook.secret_ciphertext) == found[1]
    for path in (
        "",
        f"webhooks/{webhook.pk}/",
        f"webhooks/{webhook.pk}/edit/",
        f"webhooks/{webhook.pk}/rotate/",
        "deliveries/",
    ):
        assert found[1] not in page_of(admin, f"/t/acme/alerts/{path}"), path
    assert found[1] not in caplog.text
    assert all(found[1] not in str(session.get_decoded()) for session in Session.objects.all())
    event = last_event()
    assert (event.verb, event.after) == ("webhook.created", {"url": "https://hooks.example.com/***", "secret": "***"})
    assert unescape(page).count(signing.PYTHON.splitlines()[-1]) == 1


@pytest.mark.parametrize(
    "url", ["http://hooks.example.com/", "https://127.0.0.1/", "https://localhost/x", "ftp://x/", "nonsense", ""]
)
def test_addresses_that_will_not_do_are_told_at_the_field(admin: Client, url: str) -> None:
    page = post(admin, "/t/acme/alerts/webhooks/new/", name="ops", url=url)
    assert "id_url_error" in page
    assert 'value="ops"' in page
    assert not Webhook.objects.exists()


def test_operators_may_name_an_address_of_the_house(signed_in: SignedIn, operator: User) -> None:
    post(signed_in(operator), "/admin/alerts/webhooks/new/", name="pager", url="http://10.0.0.5:9093/api")
    assert Webhook.objects.get().tenant is None


def test_webhook_is_changed_tested_rotated_and_deleted_with_one_event_each(admin: Client, ops: tuple[Webhook, str]) -> None:
    webhook, old = ops
    path = f"/t/acme/alerts/webhooks/{webhook.pk}/"
    before = AuditEvent.objects.count()
    post(admin, f"{path}edit/", **HOOK | {"url": "https://hooks.example.com/other", "is_active": "on"})
    assert last_event().after == {"url": "https://hooks.example.com/***"}
    assert "On its way" in post(admin, f"{path}test/")
    assert Delivery.objects.get().alert is None
    page = post(admin, f"{path}rotate/", overlap="24")
    assert "The old secret signs beside it until" in page
    webhook.refresh_from_db()
    assert webhook.secrets_at(timezone.now())[1] == old
    assert "That is another name" in post(admin, f"{path}delete/", name="nope")
    post(admin, f"{path}delete/", name="ops")
    assert not Webhook.objects.exists()
    verbs = list(AuditEvent.objects.filter(sequence__gt=before).order_by("sequence").values_list("verb", flat=True))
    assert verbs == ["webhook.changed", "webhook.tested", "webhook.secret_rotated", "webhook.deleted"]


def test_deliveries_are_found_by_state_and_sent_again(admin: Client, ops: tuple[Webhook, str]) -> None:
    row = sent(ops[0], state="given_up", attempts=3)
    row.tries.create(number=3, at=timezone.now(), took_ms=12, status=500, error="status", answer="<b>boom</b>")
    page = page_of(admin, "/t/acme/alerts/deliveries/?state=given_up&to=webhook")
    assert "an answer that is not 2xx" in page
    assert "No delivery fits" in page_of(admin, "/t/acme/alerts/deliveries/?state=delivered")
    page = page_of(admin, f"/t/acme/alerts/deliveries/{row.pk}/")
    assert "&lt;b&gt;boom&lt;/b&gt;" in page
    assert "on its way again" in post(admin, f"/t/acme/alerts/deliveries/{row.pk}/resend/")
    assert last_event().verb == "delivery.resent"


def test_things_of_a_stranger_are_a_404(admin: Client, globex: Tenant) -> None:
    webhook, _ = hooks.create(globex, "theirs", HOOK["url"], **BY)
    rule = globex.alert_rules.get(kind="limit")
    row = sent(webhook)
    for path in (f"webhooks/{webhook.pk}/", f"rules/{rule.pk}/", f"deliveries/{row.pk}/"):
        page_of(admin, f"/t/acme/alerts/{path}", status=404)
        page_of(admin, f"/t/globex/alerts/{path}", status=404)
        page_of(admin, f"/admin/alerts/{path}", status=404)
    said = RULE | {"webhooks": [str(webhook.pk)]}
    post(admin, "/t/acme/alerts/rules/new/?kind=limit", **said)
    assert not AlertRule.objects.filter(webhooks=webhook).exists()


def test_operators_keep_the_rules_of_the_platform(signed_in: SignedIn, operator: User) -> None:
    chief = signed_in(operator)
    page = text_of(page_of(chief, "/admin/alerts/"))
    for shown in ("A backend is out", "at once", "The ledger is behind", "after 60 seconds", "All operators"):
        assert shown in page, shown
    said = {"name": "Slow", "threshold": "5", "people": operator.email, "is_active": "on"}
    post(chief, "/admin/alerts/rules/new/?kind=backend_down", **said)
    rule = AlertRule.objects.get(name="Slow")
    assert (rule.tenant, rule.thresholds, list(rule.people.all())) == (None, [5], [operator])
    assert "What shall it watch?" in page_of(chief, "/admin/alerts/rules/new/?kind=limit")


def test_bell_counts_what_is_unread_and_is_a_plain_link(admin: Client, acme: Tenant, acme_admin: User) -> None:
    page = page_of(admin, "/t/acme/")
    assert 'href="/notifications/"' in page
    assert "bell-count" not in page
    fired(acme, acme_admin)
    fired(acme, acme_admin, subject="y")
    assert "2 unread" in page_of(admin, "/t/acme/keys/")
    assert "2 unread" in page_of(admin, "/notifications/bell/")


def test_notifications_are_read_one_by_one_or_all(admin: Client, acme: Tenant, acme_admin: User, acme_owner: User) -> None:
    alerts = [fired(acme, acme_admin, acme_owner, subject=str(n)) for n in range(3)]
    page = page_of(admin, "/notifications/")
    assert page.count('class="unread"') == 3
    assert '/t/acme/limits/"' in page
    notice = Notice.objects.get(alert=alerts[0], user=acme_admin)
    page = post(admin, "/notifications/read/", notice=str(notice.pk))
    assert page.count('class="unread"') == 2
    assert "All is read" in post(admin, "/notifications/read/") + page_of(admin, "/notifications/?state=unread")
    assert Notice.objects.filter(user=acme_owner, read_at=None).count() == 3


def test_nobody_reads_the_notice_of_somebody_else(admin: Client, acme: Tenant, acme_owner: User) -> None:
    alert = fired(acme, acme_owner)
    notice = Notice.objects.get(alert=alert)
    post(admin, "/notifications/read/", notice=str(notice.pk))
    post(admin, "/notifications/read/", notice="nonsense")
    notice.refresh_from_db()
    assert notice.read_at is None


def test_who_is_no_member_any_more_reads_nothing_of_the_tenant(admin: Client, acme: Tenant, acme_admin: User) -> None:
    fired(acme, acme_admin)
    acme.memberships.all().delete()
    assert "No notifications yet" in page_of(admin, "/notifications/")
    assert "bell-count" not in page_of(admin, "/notifications/")


def test_many_take_as_few_queries(admin: Client, acme: Tenant, acme_admin: User, django_assert_max_num_queries: Any) -> None:
    for n in range(30):
        webhook, _ = hooks.create(acme, f"w{n}", HOOK["url"], **BY)
        terms = rules.Terms("limit", f"r{n}", [80], people=[acme_admin], webhooks=[webhook], roles=["owner"])
        rules.create(acme, terms, **BY)
        fired(acme, acme_admin, subject=str(n))
        sent(webhook).tries.create(number=1, at=timezone.now(), took_ms=1)
    for path in ("/t/acme/alerts/", "/t/acme/alerts/deliveries/", "/notifications/", "/t/acme/alerts/rules/new/?kind=limit"):
        with django_assert_max_num_queries(14):
            page_of(admin, path)


def test_pages_speak_japanese(admin: Client, acme: Tenant) -> None:
    fired(acme)
    page = admin.get("/t/acme/alerts/", headers={"accept-language": "ja"}).content.decode()
    assert "アラートの履歴" in page
    assert "1 日あたりのトークン数の 80% を使用（テナント全体）" in page
