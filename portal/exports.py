"""Files of what a page shows: streamed where they are short, else made by the worker and kept for a day.

The worker's go into the database, in compressed pieces: portal and worker may be different machines, and share it. What is
kept is bounded: by rows, by bytes of one file and of all of them, and by files a person has in the making.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Unpack
from uuid import UUID

import orjson
from django.conf import settings
from django.core import signing
from django.db import connection, transaction
from django.db.models import Sum
from django.http import QueryDict
from django.utils import timezone, translation
from uuid_utils.compat import uuid7

from accounts import audit
from accounts.models import Tenant, User
from portal import spreadsheet
from portal.breakdown import HEAD, lines_of
from portal.forms.usage import AllUsageFilter, RequestFilter, UsageFilter
from usage.history import every_call
from usage.models import Export, ExportPart, ReportingZone, UsageRecord
from usage.reports import request_story
from usage.rollups import zone_named
from usage.series import how_many_rows, totals, zone_of

ROWS_MOST: Final = 2_000_000
FILE_MOST_BYTES: Final = 1 << 30
STORED_MOST_BYTES: Final = 2 << 30  # of all files together, compressed
MAKING_MOST: Final = 3  # of a person at a time
KEPT: Final = timedelta(hours=24)
LOST_AFTER: Final = timedelta(minutes=15)  # without a piece; the worker that made it is gone
AT_WORK: Final = timedelta(minutes=2)  # since its last piece
PIECE_BYTES: Final = 1 << 20
KINDS: Final = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
IN_THE_MAKING: Final = ("waiting", "running")
SUBJECTS: Final = ("usage", "requests")
REQUEST_HEAD: Final = (
    "request_id", "created_at", "alias", "key_id", "key_name", "outcome", "status", "error_code", "stream", "prompt_tokens",
    "cached_tokens", "completion_tokens", "usage_source", "cost", "queue_ms", "first_token_ms", "duration_ms", "attempts",
    "end_user", "client_request_id", "metadata",
)  # fmt: skip
_SALT: Final = "portal.exports"
_LOCK: Final = 0x5365_6B69_7368_6F0B  # beside that of portal.alerts.delivering


class CannotExport(Exception):
    """reason: rows, stored or making: which bound is in the way."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Source:
    """What is asked for: how many rows, to ROWS_MOST + 1 at most, and what they are. For requests the count is a bound."""

    head: Sequence[str]
    count: int
    rows: Callable[[], Iterator[dict[str, Any]]]


def source(subject: str, query: QueryDict, tenant: Tenant | None, now: datetime) -> Source | None:
    """What the page of this address shows, all of it; None where the page would show an error."""
    if subject == "requests":
        return _requests(query, tenant, now) if tenant else None
    form = form_of(query, tenant, now)
    if not form.is_valid():
        return None
    asked, dimension, sub = form.asked(tenants_of(form)), form.dimension, form.sub
    count = how_many_rows(asked, dimension, sub, most=ROWS_MOST)
    return Source(HEAD, count, lambda: lines_of(asked, dimension, sub))


def form_of(query: QueryDict, tenant: Tenant | None, now: datetime) -> UsageFilter:
    if tenant is not None:
        return UsageFilter(query, tenant=tenant, zone=zone_of(tenant), now=now)
    return AllUsageFilter(query, tenant=None, zone=zone_named(settings.TIME_ZONE), now=now)


def tenants_of(form: UsageFilter) -> tuple[str, ...]:
    """Whose usage counts: with all, also that of tenants that are gone."""
    chosen = form.tenant or (form.cleaned_data.get("tenant") if form.is_valid() else None)
    if chosen is not None:
        return (str(chosen.pk),)
    return tuple(str(pk) for pk in ReportingZone.objects.values_list("tenant_id", flat=True))


def encoded(found: Source, kind: str) -> Iterator[bytes]:
    """The file, row by row. kind: csv or ndjson."""
    if kind == "ndjson":
        yield from (orjson.dumps(row) + b"\n" for row in found.rows())
    else:
        cells = ([_cell(row[name]) for name in found.head] for row in found.rows())
        yield from (line.encode() for line in spreadsheet.lines(found.head, cells))


def begin(
    tenant: Tenant | None, subject: str, kind: str, query: QueryDict, *, owner: User, **by: Unpack[audit.By]
) -> Export | None:
    """Write down what is asked for; the caller sends the task. None where the address asks for nothing that can be had.

    Raises CannotExport.
    """
    now = timezone.now()
    found = source(subject, query, tenant, now)
    if found is None:
        return None
    if found.count > ROWS_MOST:
        raise CannotExport("rows")
    if (Export.objects.aggregate(sum=Sum("stored_bytes"))["sum"] or 0) > STORED_MOST_BYTES:
        raise CannotExport("stored")
    with transaction.atomic():
        User.objects.select_for_update().get(pk=owner.pk)  # so that two at once do not pass the bound together
        if Export.objects.filter(owner_id=owner.pk, state__in=IN_THE_MAKING).count() >= MAKING_MOST:
            raise CannotExport("making")
        export = Export.objects.create(
            id=uuid7(),
            owner_id=owner.pk,
            tenant_id=tenant.pk if tenant else None,
            subject=subject,
            kind=kind,
            query=query.urlencode(),
            language=translation.get_language() or settings.LANGUAGE_CODE,
            state="waiting",
            created_at=now,
            touched_at=now,
            expires_at=now + KEPT,
            rows_total=found.count,
        )
        # The filters by name alone: what people type into them may be a key, which belongs into no trail.
        after = {"subject": subject, "kind": kind, "filters": sorted(query), "rows": found.count}
        audit.record(verb="export.asked", target=f"export {export.pk}", tenant=tenant, after=after, **by)
    return export


def make(export_id: str) -> bool:
    """Make the file, piece by piece; each is told of as it is written. A second worker that is sent the same does nothing.

    One at a time, of all workers: the others' threads have the journal to post. False: another is at work, and this one waits.
    """
    now = timezone.now()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])  # so that two do not begin together
        waiting = Export.objects.filter(pk=export_id, state="waiting")
        if Export.objects.filter(state="running", touched_at__gt=now - AT_WORK).exists():
            return not waiting.update(touched_at=now)
        is_ours = waiting.update(state="running", touched_at=now)
    if is_ours:
        _make_or_fail(Export.objects.get(pk=export_id))
    return True


def _make_or_fail(export: Export) -> None:
    try:
        with translation.override(export.language):
            _make(export)
    except BaseException:
        _fail(export, "error")
        raise


def cancel(export: Export, tenant: Tenant | None, **by: Unpack[audit.By]) -> bool:
    """What is there of the file goes at once; a worker that makes it ends with its piece. False: it is not in the making."""
    with transaction.atomic():
        row = Export.objects.select_for_update().filter(pk=export.pk, state__in=IN_THE_MAKING).first()
        if row is None:
            return False
        _end(row, "cancelled")
        after = {"subject": row.subject, "kind": row.kind, "rows": row.rows_done}
        audit.record(verb="export.cancelled", target=f"export {row.pk}", tenant=tenant, after=after, **by)
    return True


def clear() -> int:
    """Remove what has expired; what no worker gets on with has failed. How many were removed."""
    now = timezone.now()
    for lost in Export.objects.filter(state__in=IN_THE_MAKING, touched_at__lt=now - LOST_AFTER):
        _fail(lost, "lost")
    expired = list(Export.objects.filter(expires_at__lt=now).values_list("pk", flat=True))
    with transaction.atomic():
        ExportPart.objects.filter(export_id__in=expired).delete()
        Export.objects.filter(pk__in=expired).delete()
    return len(expired)


def signed(export: Export) -> str:
    """What opens the file, for as long as it is kept."""
    return signing.TimestampSigner(salt=_SALT).sign(str(export.pk))


def is_signed(export: Export, text: str) -> bool:
    try:
        return signing.TimestampSigner(salt=_SALT).unsign(text, max_age=KEPT) == str(export.pk)
    except signing.BadSignature:
        return False


def fetched(export: Export, tenant: Tenant | None, **by: Unpack[audit.By]) -> Iterator[bytes]:
    """The file, and an event of who took it."""
    with transaction.atomic():
        after = {"subject": export.subject, "rows": export.rows_done}
        audit.record(verb="export.fetched", target=f"export {export.pk}", tenant=tenant, after=after, **by)
    return _pieces(export.pk)


def _pieces(pk: UUID) -> Iterator[bytes]:
    number = 0
    while True:
        body = ExportPart.objects.filter(export_id=pk, number=number).values_list("body", flat=True).first()
        if not connection.in_atomic_block:
            connection.close()  # back to its pool: a client that reads slowly holds none
        if body is None:
            return
        yield zlib.decompress(bytes(body))
        number += 1


def _make(export: Export) -> None:
    tenant = Tenant.objects.filter(pk=export.tenant_id).first() if export.tenant_id else None
    found = source(export.subject, QueryDict(export.query), tenant, export.created_at)
    if found is None or (tenant is None and export.tenant_id):
        _fail(export, "gone")
        return
    piece, rows = bytearray(), 0
    number = 0
    for line in encoded(found, export.kind):
        piece += line
        rows += 1
        if len(piece) >= PIECE_BYTES:
            if not _write(export, number, piece, rows):
                return
            number, piece = number + 1, bytearray()
    if not _write(export, number, piece, rows):
        return
    done = rows - (export.kind == "csv")  # its first line is the head
    Export.objects.filter(pk=export.pk, state="running").update(
        state="done", rows_done=done, rows_total=done, touched_at=timezone.now()
    )


def _write(export: Export, number: int, piece: bytearray, rows: int) -> bool:
    """False: it is too large, or was given up or cancelled meanwhile."""
    if rows > ROWS_MOST + 1 or export.size_bytes + len(piece) > FILE_MOST_BYTES:
        _fail(export, "rows")
        return False
    body = zlib.compress(bytes(piece), 6)
    export.size_bytes += len(piece)
    export.stored_bytes += len(body)
    with transaction.atomic():
        values = {"rows_done": rows, "size_bytes": export.size_bytes, "stored_bytes": export.stored_bytes}
        running = Export.objects.filter(pk=export.pk, state="running")
        if not running.update(touched_at=timezone.now(), **values):
            return False
        ExportPart.objects.create(export_id=export.pk, number=number, body=body)
    return True


def _fail(export: Export, reason: str) -> None:
    _end(export, "failed", reason)


def _end(export: Export, state: str, reason: str = "") -> None:
    """Without a file. What has ended otherwise meanwhile stays as it is."""
    with transaction.atomic():
        making = Export.objects.filter(pk=export.pk, state__in=IN_THE_MAKING)
        if making.update(state=state, reason=reason, stored_bytes=0, touched_at=timezone.now()):
            ExportPart.objects.filter(export_id=export.pk).delete()


def _requests(query: QueryDict, tenant: Tenant, now: datetime) -> Source | None:
    form = RequestFilter(query, tenant=tenant, zone=zone_of(tenant), now=now)
    if not form.is_valid() or form.cleaned_data["id"]:
        return None
    calls, zone = form.calls, form.zone
    # By the totals, which know most of the filters: the count is not below the truth, and costs no look at the records.
    count = sum(sums.requests for sums in totals(form.asked((str(tenant.pk),))).values())
    return Source(REQUEST_HEAD, min(count, ROWS_MOST + 1), lambda: (_line(parts, zone) for parts in every_call(tenant, calls)))


def _line(parts: Sequence[UsageRecord], zone: Any) -> dict[str, Any]:
    last, story = parts[-1], request_story(parts)
    usage = story["usage"]
    values: Iterable[Any] = (
        story["id"], last.created_at.astimezone(zone).isoformat(timespec="milliseconds"), last.alias, str(last.key_id),
        last.key_name, last.outcome, last.status, last.error_code, last.stream, usage["prompt_tokens"], usage["cached_tokens"],
        usage["completion_tokens"], usage["source"], story["cost"], last.queue_ms, last.first_token_ms, last.duration_ms,
        last.attempts, last.end_user, last.client_request_id, next((part.metadata for part in parts if part.metadata), None),
    )  # fmt: skip
    return dict(zip(REQUEST_HEAD, values, strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)
