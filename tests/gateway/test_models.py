"""What the database itself refuses, and what the validators say before."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction

from accounts import issuing
from accounts.models import ApiKey, Tenant
from gateway.models import Backend, ConfigChange, Deployment, Limit, ModelAlias, PoolMember, Publication
from usage import limits

pytestmark = pytest.mark.django_db


@pytest.fixture
def backend() -> Backend:
    return Backend.objects.create(name="gpu-1", url="http://127.0.0.1:9001")


@pytest.fixture
def tiny(backend: Backend) -> Deployment:
    deployment = Deployment.objects.create(name="tiny", served_model="tiny")
    PoolMember.objects.create(deployment=deployment, backend=backend)
    return deployment


@pytest.fixture
def general(acme: Tenant, tiny: Deployment) -> ModelAlias:
    return ModelAlias.objects.create(tenant=acme, name="general", deployment=tiny)


def refuses(row: models.Model, **fields: Any) -> None:
    """The database refuses `row` with these fields, whoever writes it."""
    for name, value in fields.items():
        setattr(row, name, value)
    with pytest.raises(IntegrityError), transaction.atomic():
        row.save()


@pytest.mark.parametrize(
    "url",
    [
        "gpu-1",
        "ftp://gpu-1",
        "http://",
        "http://u:p@gpu-1",
        "http://gpu-1/",
        "http://gpu-1/v1",
        "http://gpu-1?a",
        "http://gpu-1#a",
    ],
)
def test_database_keeps_backend_urls_in_their_one_spelling(backend: Backend, url: str) -> None:
    refuses(backend, url=url)


def test_url_is_brought_to_its_one_spelling_by_validation(backend: Backend) -> None:
    backend.url = "HTTP://GPU-1:8000/v1/"
    backend.full_clean()
    assert backend.url == "http://gpu-1:8000"
    backend.url = "http://user:password@gpu-1"
    with pytest.raises(ValidationError) as caught:
        backend.full_clean()
    assert set(caught.value.message_dict) >= {"url"}


def test_credential_is_encrypted_at_rest_and_not_shown(backend: Backend) -> None:
    backend.credential = "backend-credential"
    backend.save()
    backend.refresh_from_db()
    assert "backend-credential" not in backend.credential_ciphertext
    assert backend.credential == "backend-credential"
    assert "backend-credential" not in f"{backend!r} {backend}"
    backend.credential = None
    assert (backend.credential, backend.credential_ciphertext) == (None, "")


@pytest.mark.parametrize("name", ["", "-general", "gen eral", "a" * 129, "一般", "general\n"])
def test_alias_names_have_a_form(general: ModelAlias, name: str) -> None:
    general.name = name
    with pytest.raises(ValidationError):
        general.clean_fields()
    if len(name) <= 128:
        refuses(general, name=name)


@pytest.mark.parametrize("name", ["g", "a" * 128, "org/model-1.5:latest", "GPT_4.1"])
def test_alias_names_may_be_those_of_models(general: ModelAlias, name: str) -> None:
    general.name = name
    general.full_clean()
    general.save()


@pytest.mark.parametrize("fields", [{"max_output_tokens": 0}, {"max_choices": 0}, {"max_choices": 129}, {"max_stops": 65}])
def test_alias_counts_have_ranges(general: ModelAlias, fields: dict[str, int]) -> None:
    refuses(general, **fields)
    with pytest.raises(ValidationError):
        general.full_clean()


def test_alias_name_is_unique_in_its_tenant_only(general: ModelAlias, globex: Tenant) -> None:
    ModelAlias.objects.create(tenant=globex, name="general", deployment=general.deployment)
    with pytest.raises(IntegrityError), transaction.atomic():
        ModelAlias.objects.create(tenant=general.tenant, name="general", deployment=general.deployment)


@pytest.mark.parametrize(
    "prices",
    [
        {"price_prompt": Decimal(1)},
        {"price_completion": Decimal(1)},
        {"price_cached": Decimal(1)},
        {"price_prompt": Decimal(1), "price_cached": Decimal(1)},
        {"price_prompt": Decimal(-1), "price_completion": Decimal(1)},
        {"price_prompt": Decimal(1), "price_completion": Decimal(1), "price_cached": Decimal(-1)},
    ],
)
def test_prices_are_whole_and_not_negative(general: ModelAlias, prices: dict[str, Decimal]) -> None:
    refuses(general, **prices)


def test_limit_has_exactly_one_subject(acme: Tenant, general: ModelAlias, acme_key: tuple[ApiKey, str]) -> None:
    refuses(Limit(name="tokens_per_hour", max=1))
    refuses(Limit(name="tokens_per_hour", max=1), tenant=acme, alias=general)
    refuses(Limit(name="tokens_per_hour", max=1), tenant=acme, key=acme_key[0])
    refuses(Limit(name="tokens_per_hour", max=1), alias=general, key=acme_key[0])
    rows = [Limit.objects.create(name="tokens_per_hour", max=1, **subject) for subject in subjects(acme, general, acme_key[0])]
    assert [row.subject for row in rows] == ["tenant", "alias", "key"]


def test_subject_has_a_limit_of_a_name_once(acme: Tenant, general: ModelAlias, acme_key: tuple[ApiKey, str]) -> None:
    for subject in subjects(acme, general, acme_key[0]):
        Limit.objects.create(name="tokens_per_hour", max=1, **subject)
        Limit.objects.create(name="tokens_per_day", max=1, **subject)
        refuses(Limit(name="tokens_per_hour", max=2, **subject))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "tokens_per_fortnight"},
        {"max": 0},
        {"max": -1},
        {"max": 2**53},
        {"mode": "warn"},
        {"name": "concurrent_requests", "clamps": True},
        {"name": "requests_per_minute", "clamps": True},
        {"mode": "shadow", "clamps": True},
    ],
)
def test_limits_have_a_form(acme: Tenant, fields: dict[str, Any]) -> None:
    limit = Limit.objects.create(tenant=acme, name="tokens_per_hour", max=2**53 - 1, clamps=True)
    refuses(limit, **fields)
    with pytest.raises(ValidationError):
        limit.full_clean()


def test_limits_of_a_tenant_are_those_of_its_keys_and_aliases_too(
    acme: Tenant, globex: Tenant, general: ModelAlias, acme_key: tuple[ApiKey, str]
) -> None:
    rows = [Limit.objects.create(name="tokens_per_hour", max=1, **subject) for subject in subjects(acme, general, acme_key[0])]
    assert set(Limit.objects.for_tenant(acme)) == set(rows)
    assert not Limit.objects.for_tenant(globex).exists()


def test_replacing_limits_writes_only_what_differs(acme: Tenant) -> None:
    first = (limits.Limit("tokens_per_hour", 1), limits.Limit("tokens_per_day", 2), limits.Limit("tokens_per_month", 3))
    Limit.replace_all(acme, first)
    before = {row.name: row for row in Limit.objects.all()}
    second = (limits.Limit("tokens_per_hour", 1), limits.Limit("tokens_per_day", 2, "shadow"))
    Limit.replace_all(acme, second)
    after = {row.name: row for row in Limit.objects.all()}
    assert {row.configured for row in after.values()} == set(second)
    assert after["tokens_per_day"] == before["tokens_per_day"]
    Limit.replace_all(acme, ())
    assert not acme.limits.exists()


def test_rotation_frees_no_key_of_its_limits(acme_key: tuple[ApiKey, str]) -> None:
    key, _ = acme_key
    Limit.replace_all(key, (limits.Limit("tokens_per_hour", 1, clamps=True), limits.Limit("concurrent_requests", 2, "shadow")))
    new, _ = issuing.rotate(key, overlap=timedelta(hours=1), actor=None, actor_label="test")
    assert {row.configured for row in new.limits.all()} == {row.configured for row in key.limits.all()}
    assert new.limits.count() == 2


def subjects(acme: Tenant, general: ModelAlias, key: ApiKey) -> list[dict[str, Any]]:
    return [{"tenant": acme}, {"alias": general}, {"key": key}]


@pytest.mark.parametrize("weight", [0, 1001])
def test_weights_have_a_range(tiny: Deployment, weight: int) -> None:
    refuses(tiny.members.get(), weight=weight)


@pytest.mark.parametrize("fields", [{"tier": -1}, {"tier": 10}, {"max_concurrent_calls": 0}, {"max_concurrent_calls": -1}])
def test_places_in_a_pool_have_ranges(tiny: Deployment, fields: dict[str, int]) -> None:
    refuses(tiny.members.get(), **fields)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_concurrent_calls", 0, "Give a ceiling of 1 call or more, or none for no ceiling."),
        ("first_token_max_s", 0.0, "Give 0.05 to 86400 seconds, or none for what the installation's setting says."),
        ("first_token_max_s", 86_401.0, "Give 0.05 to 86400 seconds, or none for what the installation's setting says."),
        ("stall_max_s", 0.04, "Give 0.05 to 86400 seconds, or none for what the installation's setting says."),
        ("queue_max_s", -0.1, "Give 0 (never wait) to 86400 seconds, or none for what the installation's setting says."),
    ],
)
def test_deployment_has_ranges(tiny: Deployment, field: str, value: float, message: str) -> None:
    refuses(tiny, **{field: value})
    with pytest.raises(ValidationError) as caught:
        tiny.full_clean()
    assert message in caught.value.message_dict[field]


def test_wait_is_a_number(tiny: Deployment) -> None:
    refuses(tiny, stall_max_s=float("nan"))


def test_deployment_falls_back_to_another(tiny: Deployment) -> None:
    for field in ("fallback", "context_fallback"):
        refuses(Deployment.objects.get(), **{field: tiny})


def test_circle_of_fallbacks_is_refused_by_validation(tiny: Deployment) -> None:
    small = Deployment.objects.create(name="small", served_model="small", fallback=tiny)
    tiny.context_fallback = Deployment.objects.create(name="large", served_model="large", fallback=small)
    with pytest.raises(ValidationError) as caught:
        tiny.full_clean()
    text = "Calls would go in a circle: tiny -> large -> small -> tiny. Leave one of these out."
    assert caught.value.message_dict == {"context_fallback": [text]}
    tiny.context_fallback = None
    tiny.full_clean()
    small.full_clean()


def test_context_fallback_takes_longer_prompts(tiny: Deployment) -> None:
    tiny.max_model_len = 8192
    tiny.context_fallback = Deployment.objects.create(name="large", served_model="large", max_model_len=4096)
    with pytest.raises(ValidationError, match="“large” takes 4096 tokens, no more than the 8192 of this one"):
        tiny.full_clean()


@pytest.mark.parametrize("percent", [-1, 101])
def test_canary_percent_is_a_percent(general: ModelAlias, tiny: Deployment, percent: int) -> None:
    refuses(general, canary=tiny, canary_percent=percent)
    with pytest.raises(ValidationError, match="from 0 to 100 percent"):
        general.full_clean()


def test_canary_percent_needs_its_canary(general: ModelAlias, tiny: Deployment) -> None:
    refuses(general, canary_percent=5)
    with pytest.raises(ValidationError, match="needs a canary"):
        general.full_clean()
    general.canary = tiny
    general.full_clean()
    general.save()


def test_backend_is_in_a_pool_once(tiny: Deployment, backend: Backend) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        PoolMember.objects.create(deployment=tiny, backend=backend)


def test_what_is_used_is_not_deleted(general: ModelAlias, tiny: Deployment, backend: Backend) -> None:
    for row in (tiny, backend):
        with pytest.raises(models.ProtectedError):
            row.delete()


def test_what_others_fall_back_to_is_not_deleted(general: ModelAlias, tiny: Deployment) -> None:
    for field in ("fallback", "context_fallback"):
        target = Deployment.objects.create(name=field, served_model="m")
        Deployment.objects.filter(pk=tiny.pk).update(**{field: target})
        with pytest.raises(models.ProtectedError):
            target.delete()
    canary = Deployment.objects.create(name="canary", served_model="m")
    ModelAlias.objects.update(canary=canary)
    with pytest.raises(models.ProtectedError):
        canary.delete()


def test_deployment_has_no_empty_context(tiny: Deployment) -> None:
    refuses(tiny, max_model_len=0)


@pytest.mark.parametrize(("kind", "object_id"), [("platform", "x"), ("tenant", ""), ("key", ""), ("all", "")])
def test_change_names_its_document(kind: str, object_id: str) -> None:
    refuses(ConfigChange(), kind=kind, object_id=object_id)


def test_there_is_one_publication() -> None:
    refuses(Publication(pk=2), marker="m")
