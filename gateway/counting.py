"""Reads what the backends count themselves, for the reconciliation with the ledger; once a minute, by the worker."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from django.utils import timezone

from gateway.config import documents
from gateway.models import Backend
from gateway.routing.probing import metrics_page
from gateway.routing.token_counters import TokenCounters, read_token_counters
from usage import backend_counts

AT_ONCE: Final = 16


def count_backends() -> int:
    """Of how many backends a reading was written down. One that does not answer is read the next time."""
    known = [found for row in Backend.objects.all() if (found := _known(row))]
    if not known:
        return 0
    with ThreadPoolExecutor(min(AT_ONCE, len(known))) as pool:
        answers = list(pool.map(_read, known))
    now = timezone.now()
    read = [(backend, answer) for backend, answer in zip(known, answers, strict=True) if answer is not None]
    for backend, counters in read:
        reading = backend_counts.Reading(
            counters.prompt_tokens, counters.completion_tokens, counters.requests, counters.started_s
        )
        backend_counts.note(backend.name, reading, now)
    return len(read)


def _known(row: Backend) -> documents.Backend | None:
    try:
        return documents.Backend(row.name, row.url, row.credential)
    except ValueError:  # its field key has left the settings; the page of backends says so
        return None


def _read(backend: documents.Backend) -> TokenCounters | None:
    """Without the database: it runs in a thread."""
    page = metrics_page(backend)
    return read_token_counters(page) if page is not None else None
