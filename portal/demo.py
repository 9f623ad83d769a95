"""What a fresh installation is given: an operator and, unless refused, the demo tenant on a simulated backend.

Idempotent: what is there stays as people changed it; only the simulated backend's URL follows the port of this start.
"""

import re
import secrets
from typing import Final

from django.db import transaction

from accounts import audit, issuing
from accounts.models import ApiKey, Tenant, User
from accounts.scopes import CHAT, MODELS, USAGE
from gateway.models import Backend, Deployment, ModelAlias, PoolMember
from portal.processes import SIMULATED_MODEL

ADMIN_EMAIL: Final = "admin@localhost"
TENANT: Final = "demo"
KEY_NAME: Final = "quickstart"
ALIASES: Final = (
    (
        "general",
        {"en": "General", "ja": "汎用"},
        {"en": "Everyday questions, drafts and summaries.", "ja": "日常的な質問、下書き、要約に。"},
    ),
    (
        "secure",
        {"en": "Confidential", "ja": "機密"},
        {
            "en": "For confidential matters: served by backends inside the organisation only.",
            "ja": "機密情報を扱う業務に。組織内のバックエンドだけで処理します。",
        },
    ),
)
_BY: Final = audit.By(actor=None, actor_label="command: up")


@transaction.atomic
def seed_operator() -> tuple[str, str | None]:
    """See that somebody runs the platform: e-mail address and password; None when there was an operator already."""
    if known := User.objects.filter(is_operator=True, is_active=True).order_by("created_at").first():
        return known.email, None
    password = secrets.token_urlsafe(15)
    user = User.objects.create_user(ADMIN_EMAIL, password, is_operator=True)
    audit.record(verb="user.created", target=f"operator {user}", **_BY)
    return user.email, password


@transaction.atomic
def seed_tenant(backend_url: str) -> Tenant:
    """The demo tenant with its aliases, on one deployment whose only backend is at `backend_url`."""
    backend, _ = Backend.objects.get_or_create(name="demo", defaults={"url": backend_url})
    if backend.url != backend_url:
        backend.url = backend_url
        backend.save(update_fields=["url"])
    deployment, is_new = Deployment.objects.get_or_create(name="demo", defaults={"served_model": SIMULATED_MODEL})
    if is_new:
        PoolMember.objects.create(deployment=deployment, backend=backend)
    facts = {"name": "Demo 株式会社", "is_demo": True, "time_zone": "Asia/Tokyo"}
    tenant, is_new = Tenant.objects.get_or_create(slug=TENANT, defaults=facts)
    if is_new:
        for name, display_name, description in ALIASES:
            ModelAlias.objects.create(
                tenant=tenant, name=name, deployment=deployment, display_name=display_name, description=description
            )
        audit.record(verb="tenant.created", target=f"tenant {tenant}", tenant=tenant, **_BY)
    return tenant


def first_key(tenant: Tenant) -> str | None:
    """The text of the tenant's quickstart key on the day it is made; None ever after, for it is kept nowhere."""
    if ApiKey.objects.for_tenant(tenant).filter(name=KEY_NAME).exists():
        return None
    return _issue(tenant, KEY_NAME)


@transaction.atomic
def fresh_key(tenant: Tenant) -> str:
    """A new key for a script that starts us; the one made so at the last start is revoked."""
    numbers = [0]
    for key in ApiKey.objects.for_tenant(tenant).filter(name__startswith=f"{KEY_NAME}-"):
        if found := re.fullmatch(rf"{KEY_NAME}-(\d{{1,9}})", key.name):
            numbers.append(int(found[1]))
            issuing.revoke(key, **_BY)
    return _issue(tenant, f"{KEY_NAME}-{max(numbers) + 1}")


def _issue(tenant: Tenant, name: str) -> str:
    return issuing.issue(tenant, issuing.Terms(name=name, scopes=[CHAT, MODELS, USAGE]), **_BY)[1]
