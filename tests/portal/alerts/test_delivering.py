"""The outbox: what is sent verifies, is tried again, is given up, and is never lost with a worker."""

import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.db import connection
from django.utils import timezone

from accounts.models import AuditEvent, Tenant, User
from portal.alerts import delivering, firing, hooks, retention, signing
from portal.alerts.models import Alert, AlertRule, Attempt, Delivery, Notice, Webhook
from portal.alerts.observing import Observed
from portal.alerts.outgoing import Answer
from tests.e2e.conftest import BY
from tests.portal.alerts.conftest import Receiver

FACTS = {
    "limit": "tokens_per_day", "of": "tenant", "of_id": "x", "of_name": "Acme", "used": 812, "max": 1000, "percent": 81,
    "mode": "enforce", "is_refusing": False, "resets_s": 1_800_000_000,
}  # fmt: skip
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("reachable")]
Hooked = tuple[Webhook, str]


@pytest.fixture
def hooked(acme: Tenant, receiver: Receiver, limit_rule: AlertRule) -> Hooked:
    """A webhook to the receiver, which the rule of limits tells."""
    webhook, secret = hooks.create(acme, "ops", receiver.url, **BY)
    limit_rule.webhooks.add(webhook)
    return webhook, secret


def fire(rule: AlertRule, threshold: int = 80) -> Alert:
    of = Observed("limit:x", threshold, "2026-11-21/1000", FACTS)
    (alert,) = firing.apply([rule], {rule.pk: [of]}, timezone.now())
    return alert


def test_alert_reaches_the_webhook_and_its_signature_verifies(
    hooked: Hooked, limit_rule: AlertRule, receiver: Receiver, acme: Tenant, settings: Any
) -> None:
    settings.PORTAL_PUBLIC_URL = "https://sekisho.example"
    Tenant.objects.update(language="en")
    limit_rule.tenant = Tenant.objects.get(pk=acme.pk)
    fire(limit_rule)
    assert delivering.deliver() == 1
    (got,) = receiver.got
    assert signing.is_signed(got.body, got.headers[signing.HEADER], hooked[1], now_s=time.time())
    told = json.loads(got.body)
    delivery = Delivery.objects.get()
    assert (told["type"], told["tenant"], told["id"]) == ("alert.fired", "acme", str(delivery.pk))
    assert told["text"] == "80% used: Tokens per day (the whole tenant)"
    assert told["alert"]["url"] == "https://sekisho.example/t/acme/limits/"
    assert (told["alert"]["threshold"], told["alert"]["unit"]) == (80, "percent")
    assert (got.headers[signing.DELIVERY], got.headers[signing.ATTEMPT]) == (str(delivery.pk), "1")
    assert delivery.state == Delivery.State.DELIVERED
    assert delivery.tries.get().status == 204
    assert delivering.deliver() == 0


def test_end_of_an_alert_reaches_webhook_and_mailbox(
    receiver: Receiver, acme: Tenant, acme_owner: User, settings: Any, mailoutbox: list[EmailMessage]
) -> None:
    settings.IS_MAIL_CONFIGURED = True
    Tenant.objects.update(language="en")
    webhook, secret = hooks.create(acme, "ops", receiver.url, **BY)
    rule = acme.alert_rules.get(kind="error_rate")
    rule.webhooks.add(webhook)
    facts = {"errors": 9, "requests": 20, "percent": 45.0, "minutes": 10}
    begun = timezone.now()
    firing.apply([rule], {rule.pk: [Observed("errors", 20, facts=facts)]}, begun)
    firing.apply([rule], {rule.pk: []}, begun + timedelta(minutes=3))
    Delivery.objects.update(next_at=begun)
    assert delivering.deliver() == 4
    told = {json.loads(got.body)["type"]: json.loads(got.body) for got in receiver.got}
    assert all(signing.is_signed(got.body, got.headers[signing.HEADER], secret, now_s=time.time()) for got in receiver.got)
    fired, ended = told["alert.fired"], told["alert.ended"]
    assert fired["id"] != ended["id"]
    assert (fired["alert"]["ended_at"], ended["text"]) == (None, "Over: 45.0% of calls failed")
    assert ended["alert"]["fired_at"] == fired["alert"]["fired_at"] < ended["alert"]["ended_at"]
    assert ended["alert"]["detail"].startswith("It lasted 3 minutes, from ")
    assert sorted(mail.subject for mail in mailoutbox) == [
        "[Sekisho] Acme: 45.0% of calls failed",
        "[Sekisho] Acme: Over: 45.0% of calls failed",
    ]


def test_both_secrets_sign_during_an_overlap_and_then_the_new_one_alone(
    hooked: Hooked, limit_rule: AlertRule, receiver: Receiver
) -> None:
    webhook, old = hooked
    new = hooks.rotate(webhook, timedelta(hours=1), **BY)
    fire(limit_rule)
    delivering.deliver()
    got = receiver.got[0]
    for secret in (old, new):
        assert signing.is_signed(got.body, got.headers[signing.HEADER], secret, now_s=time.time())
    Webhook.objects.update(old_until=timezone.now())
    hooks.test(webhook, **BY)
    delivering.deliver()
    got = receiver.got[1]
    assert signing.is_signed(got.body, got.headers[signing.HEADER], new, now_s=time.time())
    assert not signing.is_signed(got.body, got.headers[signing.HEADER], old, now_s=time.time())


def test_what_fails_is_tried_again_with_the_same_id_and_body(hooked: Hooked, limit_rule: AlertRule, receiver: Receiver) -> None:
    receiver.status = 503
    fire(limit_rule)
    delivering.deliver(chance=lambda: 0.5)
    waiting = Delivery.objects.get()
    pause = waiting.next_at - waiting.tries.get().at
    assert timedelta(seconds=9) < pause < timedelta(seconds=20)
    assert delivering.deliver() == 0
    receiver.status = 200
    Delivery.objects.update(next_at=timezone.now())
    assert delivering.deliver() == 1
    first, second = receiver.got
    assert first.body == second.body
    assert first.headers[signing.DELIVERY] == second.headers[signing.DELIVERY]
    assert [first.headers[signing.ATTEMPT], second.headers[signing.ATTEMPT]] == ["1", "2"]
    assert [one.status for one in Attempt.objects.all()] == [503, 200]
    assert Delivery.objects.get().state == Delivery.State.DELIVERED


def test_it_is_given_up_when_its_time_is_over_and_can_be_sent_again(
    hooked: Hooked, limit_rule: AlertRule, receiver: Receiver
) -> None:
    receiver.status = 500
    fire(limit_rule)
    Delivery.objects.update(give_up_at=timezone.now())
    delivering.deliver()
    ended = Delivery.objects.get()
    assert ended.state == Delivery.State.GIVEN_UP
    assert hooks.resend(ended, **BY)
    assert not hooks.resend(ended, **BY)
    receiver.status = 204
    delivering.deliver()
    assert Delivery.objects.get().state == Delivery.State.DELIVERED
    assert AuditEvent.objects.filter(verb="delivery.resent").count() == 1


def test_a_worker_that_dies_while_sending_leaves_it_to_the_next(
    hooked: Hooked, limit_rule: AlertRule, receiver: Receiver
) -> None:
    fire(limit_rule)
    now = timezone.now()
    assert len(delivering.claim(now)) == 1  # and then it is gone
    assert delivering.claim(now) == []
    Delivery.objects.update(next_at=now)
    assert delivering.deliver() == 1
    assert receiver.got[0].headers[signing.ATTEMPT] == "2"


def test_two_workers_claim_each_delivery_once(transactional_db: None, acme: Tenant, receiver: Receiver) -> None:
    webhooks = [hooks.create(acme, f"w{n}", receiver.url, **BY)[0] for n in range(6)]
    for webhook in webhooks:
        hooks.test(webhook, **BY)
    barrier, claimed = threading.Barrier(4), []

    def take() -> None:
        barrier.wait(timeout=30)
        claimed.extend(one.pk for one in delivering.claim(timezone.now()))
        connection.close()

    workers = [threading.Thread(target=take) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(claimed) == len(set(claimed)) == 6


def test_a_late_note_does_not_end_what_was_asked_for_anew(hooked: Hooked, limit_rule: AlertRule) -> None:
    fire(limit_rule)
    (mine,) = delivering.claim(timezone.now())
    Delivery.objects.update(attempts=2)
    delivering.note(mine, Answer(None, 5, "timeout"), timezone.now(), chance=0.5)
    assert Delivery.objects.get().state == Delivery.State.WAITING


def test_a_note_of_what_is_gone_is_left_out(hooked: Hooked, limit_rule: AlertRule) -> None:
    fire(limit_rule)
    (mine,) = delivering.claim(timezone.now())
    hooks.delete(hooked[0], **BY)
    delivering.note(mine, Answer(204, 5), timezone.now(), chance=0.5)
    assert not Attempt.objects.exists()


def test_the_house_is_refused_to_tenants_whatever_was_saved(
    hooked: Hooked, limit_rule: AlertRule, receiver: Receiver, settings: Any
) -> None:
    settings.WEBHOOK_NETWORKS = []
    fire(limit_rule)
    delivering.deliver()
    assert Attempt.objects.get().error == "refused"
    assert receiver.got == []


def test_a_webhook_that_is_switched_off_gets_no_alert(hooked: Hooked, limit_rule: AlertRule, receiver: Receiver) -> None:
    fire(limit_rule)
    Webhook.objects.update(is_active=False)
    delivering.deliver()
    assert Attempt.objects.get().error == "gone"
    fire(limit_rule, 100)
    assert Delivery.objects.count() == 1


def test_no_secret_and_no_figure_reaches_a_log(
    hooked: Hooked, limit_rule: AlertRule, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        fire(limit_rule)
        delivering.deliver()
        receiver.status = 500
        hooks.test(hooked[0], **BY)
        delivering.deliver()
    signature = receiver.got[0].headers[signing.HEADER]
    for hidden in (hooked[1], signature, "812"):
        assert hidden not in caplog.text
    stored = str(list(Webhook.objects.values())) + str(list(AuditEvent.objects.values("before", "after", "target")))
    assert hooked[1] not in stored


@pytest.mark.parametrize(
    ("language", "subject", "line"),
    [
        ("en", "80% used: Tokens per day", "812 of 1,000 are used (81%)."),
        ("ja", "1 日あたりのトークン数の 80% を使用", "1,000 のうち 812 を使用しました（81%）。"),
    ],
)
def test_letter_is_in_the_language_of_whoever_gets_it(
    limit_rule: AlertRule,
    acme_owner: User,
    settings: Any,
    mailoutbox: list[EmailMessage],
    language: str,
    subject: str,
    line: str,
) -> None:
    settings.IS_MAIL_CONFIGURED = True
    acme_owner.language = language
    acme_owner.save()
    Tenant.objects.update(name="Acme\r\nBcc: all@acme.example")
    limit_rule.tenant = Tenant.objects.get()
    fire(limit_rule)
    delivering.deliver()
    (mail,) = mailoutbox
    assert mail.to == [acme_owner.email]
    assert subject in mail.subject
    assert "\n" not in mail.subject
    assert line in mail.body
    assert "/t/acme/limits/" in mail.body
    assert Delivery.objects.get().state == Delivery.State.DELIVERED


def test_a_mail_server_that_is_out_is_tried_again(limit_rule: AlertRule, acme_owner: User, settings: Any) -> None:
    settings.IS_MAIL_CONFIGURED = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    fire(limit_rule)
    delivering.deliver()
    assert Attempt.objects.get().error == "mail"
    assert Delivery.objects.get().state == Delivery.State.WAITING


def test_what_cannot_be_told_holds_nothing_else_up(
    hooked: Hooked, limit_rule: AlertRule, receiver: Receiver, acme_owner: User, settings: Any
) -> None:
    settings.IS_MAIL_CONFIGURED = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"  # without the folder it wants
    broken = fire(limit_rule, 100)
    Alert.objects.filter(pk=broken.pk).update(facts={}, window="x")
    fire(limit_rule, 80)
    delivering.deliver()
    assert set(Attempt.objects.values_list("error", flat=True)) == {"unsaid", "mail", ""}
    assert len(receiver.got) == 1


def test_old_alerts_go_and_open_ones_and_what_is_on_its_way_stay(
    hooked: Hooked, limit_rule: AlertRule, acme_owner: User
) -> None:
    open_one = fire(limit_rule)
    over = fire(limit_rule, 100)
    long_ago = timezone.now() - retention.ALERTS_KEPT - timedelta(days=1)
    Alert.objects.filter(pk=over.pk).update(ended_at=long_ago)
    Delivery.objects.filter(alert=over).update(state=Delivery.State.DELIVERED, created_at=long_ago)
    Delivery.objects.filter(alert=open_one).update(created_at=long_ago)
    assert retention.prune(timezone.now()) == (1, 1)
    assert Alert.objects.get() == open_one
    assert Delivery.objects.get().alert == open_one
    assert Notice.objects.count() == 1


def test_the_tasks_run(hooked: Hooked, receiver: Receiver, valkey: object) -> None:
    from portal.alerts import tasks

    hooks.test(hooked[0], **BY)
    run: list[Callable[[], None]] = [tasks.watch, tasks.deliver, tasks.prune]
    for task in run:
        task()
    assert json.loads(receiver.got[0].body)["type"] == "test"
