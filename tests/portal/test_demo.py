"""The demo: seeded once, left as people change it, and with keys whose text is told once."""

import pytest

from accounts.models import ApiKey, AuditEvent, Tenant, User
from gateway.models import Backend, ModelAlias
from portal import demo
from portal.processes import DEMO_ALIASES

pytestmark = pytest.mark.django_db
URL = "http://127.0.0.1:8002"


def test_the_operator_is_made_once_with_a_random_password() -> None:
    email, password = demo.seed_operator()
    assert password is not None
    user = User.objects.get(email=email)
    assert user.is_operator
    assert user.check_password(password)
    assert demo.seed_operator() == (email, None)


def test_an_operator_of_another_name_is_enough(operator: User) -> None:
    assert demo.seed_operator() == (operator.email, None)
    assert User.objects.count() == 1


def test_seeding_twice_changes_nothing() -> None:
    demo.seed_tenant(URL)
    before = list(ModelAlias.objects.values()), list(Tenant.objects.values()), AuditEvent.objects.count()
    demo.seed_tenant(URL)
    assert (list(ModelAlias.objects.values()), list(Tenant.objects.values()), AuditEvent.objects.count()) == before


def test_aliases_are_described_in_both_languages() -> None:
    tenant = demo.seed_tenant(URL)
    assert tenant.is_demo
    aliases = tenant.aliases.all()
    assert {alias.name for alias in aliases} == set(DEMO_ALIASES)
    for alias in aliases:
        alias.full_clean()
        assert set(alias.display_name) == set(alias.description) == {"en", "ja"}


def test_what_people_changed_stays() -> None:
    tenant = demo.seed_tenant(URL)
    tenant.aliases.get(name="secure").delete()
    Tenant.objects.update(name="Ours")
    demo.seed_tenant(URL)
    assert [alias.name for alias in tenant.aliases.all()] == ["general"]
    assert Tenant.objects.get().name == "Ours"


def test_the_simulated_backend_follows_the_port_of_this_start() -> None:
    demo.seed_tenant(URL)
    demo.seed_tenant("http://127.0.0.1:9999")
    assert Backend.objects.get().url == "http://127.0.0.1:9999"


def test_the_first_key_is_told_once() -> None:
    tenant = demo.seed_tenant(URL)
    assert demo.first_key(tenant)
    assert demo.first_key(tenant) is None


def test_a_fresh_key_replaces_the_last_fresh_one_alone() -> None:
    tenant = demo.seed_tenant(URL)
    demo.first_key(tenant)
    texts = {demo.fresh_key(tenant) for _ in range(3)}
    assert len(texts) == 3
    usable = ApiKey.objects.for_tenant(tenant).usable()
    assert {key.name for key in usable} == {"quickstart", "quickstart-3"}
