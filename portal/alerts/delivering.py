"""The way out of the outbox: claim what is due, try it, note how that went.

Claimed in a short transaction, so that no number of an attempt is used twice, and tried outside of it: who is killed in
between leaves a delivery that is due again when its claim is over. The receiver tells repetitions by the delivery's id.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.utils import timezone

from portal.alerts import body, outgoing, pace, signing
from portal.alerts.letter import letter
from portal.alerts.models import Attempt, Delivery, Webhook
from portal.alerts.outgoing import Answer

AT_ONCE: Final = 16
OF_ONE_WEBHOOK: Final = 2  # of a turn: one that hangs holds nobody else up for long
CLAIMED_FOR: Final = timedelta(seconds=60)
PATIENCE_S: Final = outgoing.DEADLINE_S + 4
TURN_S: Final = 10.0  # after that no other batch is begun: the thread is the worker's, which has the journal to post
_LOCK: Final = 0x5365_6B69_7368_6F0A  # beside those of accounts.audit and usage.rollups
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Try:
    """What is needed to try one, away from the database."""

    delivery: Delivery
    url: str = ""
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    reach: outgoing.Reach = field(default_factory=outgoing.Reach)
    mail: EmailMessage | None = None
    refused: str = ""  # why it is not even tried


def deliver(*, chance: Any = random.random) -> int:
    """One turn: how many were tried. Only one turn runs at a time, in all workers."""
    with _alone() as is_alone:
        if not is_alone:
            return 0
        begun_s, tried = time.monotonic(), 0
        while time.monotonic() - begun_s < TURN_S and (claimed := claim(timezone.now())):
            tried += len(claimed)
            for one, answer in _answers([_prepared(delivery) for delivery in claimed]):
                note(one.delivery, answer, timezone.now(), chance=chance())
        return tried


def claim(now: datetime) -> list[Delivery]:
    """What is due, each with its next attempt begun. Those claimed elsewhere are left alone."""
    with transaction.atomic():
        due = Delivery.objects.filter(state=Delivery.State.WAITING, next_at__lte=now).order_by("next_at")
        found = due.select_for_update(of=("self",), skip_locked=True).values_list("pk", "webhook")[: AT_ONCE * 8]
        per_webhook: Counter[Any] = Counter()
        chosen = []
        for pk, webhook in found:
            per_webhook[webhook] += 1
            if webhook is None or per_webhook[webhook] <= OF_ONE_WEBHOOK:
                chosen.append(pk)
        rows = Delivery.objects.filter(pk__in=chosen[:AT_ONCE])
        claimed = list(rows.select_related("tenant", "alert__tenant", "webhook__tenant", "user"))
        for one in claimed:
            one.attempts += 1
            one.next_at = now + CLAIMED_FOR
        Delivery.objects.bulk_update(claimed, ["attempts", "next_at"])
    return claimed


def note(delivery: Delivery, answer: Answer, now: datetime, *, chance: float) -> None:
    """chance: from 0 to 1, of when it is tried again."""
    again = None if not answer.error else pace.next_try(now, delivery.attempts, delivery.give_up_at, chance=chance)
    with transaction.atomic():
        if not Delivery.objects.select_for_update(of=("self",)).filter(pk=delivery.pk).exists():
            return  # its webhook, its person or its tenant went away meanwhile
        Attempt.objects.create(
            delivery=delivery,
            number=delivery.attempts,
            at=now - timedelta(milliseconds=answer.took_ms),
            took_ms=answer.took_ms,
            status=answer.status,
            error=answer.error,
            answer=answer.answer,
        )
        # Not where somebody asked for it anew meanwhile: then it is that attempt which counts.
        mine = Delivery.objects.filter(pk=delivery.pk, attempts=delivery.attempts, state=Delivery.State.WAITING)
        if not answer.error:
            mine.update(state=Delivery.State.DELIVERED, ended_at=now)
        elif again is None:
            mine.update(state=Delivery.State.GIVEN_UP, ended_at=now)
        else:
            mine.update(next_at=again)


def _prepared(delivery: Delivery) -> _Try:
    try:
        return _told(delivery)
    except Exception as problem:  # noqa: BLE001 - one that cannot be told must not hold up all that are due after it
        _log.error("A delivery could not be prepared: %s", type(problem).__name__)
        return _Try(delivery, refused="unsaid")


def _told(delivery: Delivery) -> _Try:
    if delivery.webhook is not None:
        return _signed(delivery, delivery.webhook)
    if delivery.alert is None or delivery.user is None or not settings.IS_MAIL_CONFIGURED:
        return _Try(delivery, refused="no_mail")
    return _Try(delivery, mail=letter(delivery, delivery.alert, delivery.user))


def _signed(delivery: Delivery, webhook: Webhook) -> _Try:
    if not webhook.is_active and delivery.alert_id is not None:
        return _Try(delivery, refused="gone")
    try:
        keys = webhook.secrets_at(timezone.now())
    except ValueError:
        return _Try(delivery, refused="secret")
    content = body.body(delivery)
    headers = (
        ("Content-Type", "application/json"),
        ("User-Agent", f"Sekisho/{settings.VERSION}"),
        (signing.DELIVERY, str(delivery.id)),
        (signing.ATTEMPT, str(delivery.attempts)),
        (signing.HEADER, signing.sign(content, keys, now_s=time.time())),
    )
    reach = outgoing.reach_of_operators() if webhook.tenant_id is None else outgoing.reach_of_tenants()
    return _Try(delivery, webhook.url, content, headers, reach)


def _answers(tries: Sequence[_Try]) -> Iterator[tuple[_Try, Answer]]:
    """All at the same time. What has not ended when the patience has is noted as such, and left to end by itself."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="alerts")
    running = {pool.submit(_sent, one): one for one in tries}
    try:
        done, late = wait(running, timeout=PATIENCE_S)
        for future in done:
            yield running[future], future.result()
        for future in late:
            yield running[future], Answer(None, round(PATIENCE_S * 1000), "timeout")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _sent(one: _Try) -> Answer:
    """Without the database, and without raising."""
    if one.refused:
        return Answer(None, 0, one.refused)
    if one.mail is None:
        return outgoing.post(one.url, one.body, dict(one.headers), one.reach)
    begun_s = time.monotonic()
    error = ""
    try:
        one.mail.send()
    except Exception as problem:  # noqa: BLE001 - the edge of a thread, and mail backends raise what they like
        _log.warning("A mail of an alert could not be sent: %s", type(problem).__name__)
        error = "mail"
    return Answer(None, round((time.monotonic() - begun_s) * 1000), error)


@contextmanager
def _alone() -> Iterator[bool]:
    """By a lock of the session, for no transaction is open while something is sent; a worker that dies lets go of it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        is_ours = bool((cursor.fetchone() or (False,))[0])
    try:
        yield is_ours
    finally:
        if is_ours:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
