"""What the database itself refuses, and what the validators say before."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction

from accounts.models import Tenant
from gateway.models import Backend, ConfigChange, Deployment, ModelAlias, PoolMember, Publication

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


@pytest.mark.parametrize("weight", [0, 1001])
def test_weights_have_a_range(tiny: Deployment, weight: int) -> None:
    refuses(tiny.members.get(), weight=weight)


def test_backend_is_in_a_pool_once(tiny: Deployment, backend: Backend) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        PoolMember.objects.create(deployment=tiny, backend=backend)


def test_what_is_used_is_not_deleted(general: ModelAlias, tiny: Deployment, backend: Backend) -> None:
    for row in (tiny, backend):
        with pytest.raises(models.ProtectedError):
            row.delete()


def test_deployment_has_no_empty_context(tiny: Deployment) -> None:
    refuses(tiny, max_model_len=0)


@pytest.mark.parametrize(("kind", "object_id"), [("platform", "x"), ("tenant", ""), ("key", ""), ("all", "")])
def test_change_names_its_document(kind: str, object_id: str) -> None:
    refuses(ConfigChange(), kind=kind, object_id=object_id)


def test_there_is_one_publication() -> None:
    refuses(Publication(pk=2), marker="m")
