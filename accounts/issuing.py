"""Issue, import, revise, rotate and revoke API keys: each is one transaction with its audit event.

The text of a key is returned once, by what made it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Unpack

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit, keys
from accounts.models import ApiKey, Tenant
from accounts.scopes import CHAT, MODELS, SCOPES

SCOPES_DEFAULT: Final = (CHAT, MODELS)
OVERLAP_MAX: Final = timedelta(days=365)
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class IssuingError(Exception):
    """What was asked for cannot be. field: the argument at fault; message: for people, in their language."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Terms:
    """What a key may do, and until when.

    aliases None: all of the tenant's. policies: content policies by name. Whether either exist is not asked here.
    networks: CIDR, empty: from anywhere. error_dialect None: the tenant's. expires_at: aware, None: never.
    """

    name: str
    scopes: Sequence[str] = SCOPES_DEFAULT
    aliases: Sequence[str] | None = None
    networks: Sequence[str] = ()
    error_dialect: str | None = None
    expires_at: datetime | None = None
    policies: Sequence[str] = ()


@transaction.atomic
def issue(tenant: Tenant, terms: Terms, *, more: Mapping[str, Any] = NOTHING, **by: Unpack[audit.By]) -> tuple[ApiKey, str]:
    """Mint a key. The text is returned this once and kept nowhere. Raises IssuingError.

    more: what the caller writes of it besides, in the same transaction, for the one audit event.
    """
    text = keys.mint()
    key = _insert(_row(tenant, terms, text), by)
    _record("key.issued", key, by, after={**_facts(key), **more})
    return key, text


@transaction.atomic
def issue_for_playground(tenant: Tenant, terms: Terms, text: str, **by: Unpack[audit.By]) -> ApiKey:
    """The key of accounts.playground, of the person who acts. Raises IssuingError."""
    row = _row(tenant, terms, text)
    row.is_playground = True
    key = _insert(row, by)
    record_played(key, by)
    return key


def record_played(key: ApiKey, by: audit.By) -> None:
    _record("key.played", key, by, after=_facts(key))


@transaction.atomic
def import_key(tenant: Tenant, terms: Terms, text: str, *, more: Mapping[str, Any] = NOTHING, **by: Unpack[audit.By]) -> ApiKey:
    """Take over a key text made elsewhere, so that its clients need no change. more: as for issue(). Raises IssuingError."""
    if not keys.is_importable(text):
        if text.startswith(keys.PREFIX):
            raise IssuingError(
                "text", _("This key begins as one of Sekisho's, but is damaged: a character is wrong or missing.")
            )
        raise IssuingError("text", _("A key has 20 to 512 visible ASCII characters, and no spaces."))
    # An imported key is found by an HMAC: one imported under an older pepper has another lookup id.
    known = [keys.lookup_id(text, pepper) for pepper in keys.peppers(settings.KEY_PEPPERS)]
    if ApiKey.objects.filter(lookup_id__in=known).exists():
        raise IssuingError("text", _("This key is here already."))
    key = _insert(_row(tenant, terms, text), by)
    _record("key.imported", key, by, after={**_facts(key), **more})
    return key


@transaction.atomic
def revise(
    key: ApiKey,
    terms: Terms,
    *,
    before: Mapping[str, Any] = NOTHING,
    after: Mapping[str, Any] = NOTHING,
    **by: Unpack[audit.By],
) -> bool:
    """Give `key` other terms, for the calls that begin from now on. False when nothing changes: nothing is written then.

    A key that is revoked or rotated keeps its terms. `key` is brought up to date. Raises IssuingError, `key` being as it was.
    before, after: what the caller changes of it besides, in the same transaction, for the one audit event.
    """
    row = ApiKey.objects.select_for_update().get(pk=key.pk)
    if not row.is_revisable:
        raise IssuingError("key", _("“%(name)s” is revoked or rotated: its terms stay as they are.") % {"name": row.name})
    held = {name: getattr(row, name) for name in _stored(terms)}
    wanted = {name: value for name, value in _stored(terms).items() if value != held[name]}
    if wanted:
        for name, value in wanted.items():
            setattr(row, name, value)
        _check(row, is_end_new="expires_at" in wanted)
        _save(row, update_fields=list(wanted))
    is_changed = bool(wanted or after)
    if is_changed:
        were = {name: held[name] for name in wanted}
        _record("key.changed", row, by, before={**were, **before}, after={**wanted, **after})
    key.refresh_from_db()
    return is_changed


@transaction.atomic
def rotate(key: ApiKey, *, overlap: timedelta, **by: Unpack[audit.By]) -> tuple[ApiKey, str]:
    """Replace `key` by a new one of the same terms; the old one stays valid for `overlap`, or until its earlier expiry.

    Returns the new key and its text; `key` is brought up to date. Raises IssuingError.
    """
    if not timedelta() <= overlap <= OVERLAP_MAX:
        raise IssuingError("overlap", _("The overlap must be between 0 and 365 days."))
    key.refresh_from_db(from_queryset=ApiKey.objects.select_for_update())  # two rotations at once: the second sees the first
    if key.state != "active" or key.is_playground:
        raise IssuingError("key", _("Only an active key can be rotated; “%(name)s” is not.") % {"name": key.name})
    terms = Terms(key.name, key.scopes, key.aliases, key.networks, key.error_dialect, key.expires_at, key.policies)
    text = keys.mint()
    new = _row(key.tenant, terms, text)
    before = {"expires_at": key.expires_at}
    end = timezone.now() + overlap
    key.expires_at = end if key.expires_at is None else min(key.expires_at, end)
    key.successor = new  # before `new` is there: the name is free only then, and the foreign key is checked at the commit
    key.save(update_fields=["expires_at", "successor"])
    _insert(new, by)
    _record("key.rotated", key, by, before=before, after={"expires_at": key.expires_at, "successor": _facts(new)})
    return new, text


@transaction.atomic
def revoke(key: ApiKey, **by: Unpack[audit.By]) -> bool:
    """Refuse `key` from now on, for ever. False when it was revoked before: then nothing is written."""
    key.refresh_from_db(from_queryset=ApiKey.objects.select_for_update())
    if key.revoked_at is not None:
        return False
    before = {"state": key.state}
    key.revoked_at = timezone.now()
    key.save(update_fields=["revoked_at"])
    _record("key.revoked", key, by, before=before, after={"state": key.state})
    return True


def _row(tenant: Tenant, terms: Terms, text: str) -> ApiKey:
    pepper = keys.peppers(settings.KEY_PEPPERS)[0]
    return ApiKey(
        tenant=tenant,
        lookup_id=keys.lookup_id(text, pepper),
        hint=keys.hint(text),
        pepper_id=pepper.id,
        digest=keys.digest(text, pepper),
        is_imported=not keys.is_minted(text),
        **_stored(terms),
    )


def _stored(terms: Terms) -> dict[str, Any]:
    """The terms as the row holds them."""
    return {
        "name": terms.name.strip(),
        "scopes": sorted(set(terms.scopes)),
        "aliases": None if terms.aliases is None else sorted(set(terms.aliases)),
        "policies": sorted(set(terms.policies)),
        "networks": list(dict.fromkeys(terms.networks)),
        "error_dialect": terms.error_dialect,
        "expires_at": terms.expires_at,
    }


def _insert(key: ApiKey, by: audit.By) -> ApiKey:
    refuse_suspended(key.tenant)
    _check(key, is_end_new=True)
    key.created_by = by["actor"]
    _save(key, force_insert=True)
    return key


def refuse_suspended(tenant: Tenant) -> None:
    """Raises IssuingError."""
    if not tenant.is_active:
        raise IssuingError("tenant", _("The tenant “%(slug)s” is suspended: it gets no keys.") % {"slug": tenant.slug})


def _check(key: ApiKey, *, is_end_new: bool) -> None:
    if keys.PATTERN.search(key.name):
        raise IssuingError("name", _("A name is shown to everybody: do not put a key into it."))
    if unknown := set(key.scopes) - set(SCOPES):
        facts = {"unknown": ", ".join(sorted(unknown)), "known": ", ".join(SCOPES)}
        raise IssuingError("scopes", _("No such scope: %(unknown)s. There are: %(known)s.") % facts)
    if is_end_new and key.expires_at is not None and key.expires_at <= timezone.now():
        raise IssuingError("expires_at", _("The expiry is in the past."))


def _save(key: ApiKey, **how: Any) -> None:
    try:
        key.full_clean()
        key.save(**how)
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise IssuingError("name" if field == "__all__" else field, " ".join(messages)) from error
    except IntegrityError as error:  # what full_clean asked changed before the row was there
        raise IssuingError("name", _("A key like this was made at the same moment.")) from error


def _record(
    verb: str, key: ApiKey, by: audit.By, *, before: Mapping[str, object] | None = None, after: Mapping[str, object]
) -> None:
    audit.record(verb=verb, target=f"key {key}", tenant=key.tenant, before=before, after=after, **by)


def _facts(key: ApiKey) -> dict[str, object]:
    """What the audit trail tells of a new key."""
    return {
        "id": key.id,
        "name": key.name,
        "hint": key.hint,
        "scopes": key.scopes,
        "aliases": key.aliases,
        "policies": key.policies,
        "networks": key.networks,
        "error_dialect": key.error_dialect,
        "expires_at": key.expires_at,
    }
