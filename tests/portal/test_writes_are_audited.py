"""Each URL of the map that takes a POST: what it writes leaves one audit event, what it refuses or leaves as it was none.

The tables below say for each what a good POST is; a page that is new stands in none of them, and fails a test.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from django.test import Client

from accounts.models import ApiKey, AuditEvent, Membership, Tenant, User
from accounts.roles import Action, Role
from gateway.config import draining, policies
from gateway.models import Backend, ContentPolicy, Deployment, ModelAlias, PoolMember
from portal.alerts.models import Webhook
from portal.identity import lockouts
from tests.conftest import PASSWORD
from tests.e2e.conftest import BY
from tests.portal.furnished import RULES, Place, Things, furnish, places
from tests.portal.sent import Fields, filled
from tests.portal.test_account_pages import code_of
from tests.portal.test_sign_in_security import enter, protect
from usage.models import Export

pytestmark = pytest.mark.django_db
POSTS = {place.name: place for place in places() if "POST" in place.methods}

# What writes nothing that the trail tells of, and why.
EXEMPT: Mapping[str, str] = {
    "account_reauthenticate": "says once more who it is: the session alone remembers it",
    "mfa_reauthenticate": "likewise, by a code",
    "mfa_reauthenticate_webauthn": "likewise, by a passkey: needs the key itself",
    "account_reset_password": "sends a mail; that the password was changed is told where it is",
    "openid_connect_login": "leads to the provider: tests/portal/test_sign_in_by_provider.py",
    "mfa_login_webauthn": "needs the key itself; the receiver is that of every sign-in",
    "mfa_add_webauthn": "needs the key itself; the receiver is that of the app",
    "reports": "the gateway asks for figures, and nothing is written",
    "admin_tenant_new": "a step of the wizard: the session alone keeps it until the summary",
    "policy": "tries a text on the policy, and keeps nothing",
    "admin_policy": "likewise",
    "notices_read": "a person's own bell: that something was read is nobody else's",
    "playground": "a call as a program's; the first of a day is told: tests/portal/test_playground_pages.py",
    "playground_call": "likewise",
    "playground_code": "shows the call as a program, and keeps nothing",
}


@dataclass
class World:
    """An operator's browser, acme furnished, and what a POST needs besides."""

    client: Client
    acme: Tenant
    things: Things
    operator: User
    valkey: redis.Redis
    path: dict[str, Any] = field(default_factory=dict)  # arguments of the URL in the place of the things'

    def key(self) -> ApiKey:
        return ApiKey.objects.get(pk=self.things["key"]["pk"])

    def policy(self, place: Place) -> ContentPolicy:
        name = self.things["admin_policy" if place.name.startswith("admin_") else "policy"]["name"]
        return ContentPolicy.objects.get(name=name)


Data = Mapping[str, Any]


@dataclass(frozen=True)
class Write:
    """changes: of what the form shows. page: where the form stands, "" where it is at the URL itself; None: there is none.

    before: what must have been. told: the verbs that the POST leaves. again: may the same be sent twice, and is the second
    one for nothing?
    """

    changes: Data | Callable[[World], Data] = field(default_factory=dict)
    page: str | None = ""
    before: Callable[[World, Place], None] = lambda _world, _place: None
    told: tuple[str, ...] = ("*",)
    again: bool = True


def suspended(world: World, _: Place) -> None:
    Tenant.objects.filter(pk=world.acme.pk).update(is_active=False, suspension_reason="late")


def viewing(world: World, _: Place) -> None:
    world.client.post(f"/admin/tenants/{world.acme.slug}/view/")


def own_files(world: World, _: Place) -> None:
    Export.objects.update(owner_id=world.operator.pk)


def drained(world: World, _: Place) -> None:
    draining.drain(Backend.objects.get(name=world.things["backend"]["name"]), **BY)


def unused_backend(world: World, _: Place) -> None:
    PoolMember.objects.all().delete()


def unused_deployment(world: World, _: Place) -> None:
    ModelAlias.objects.all().delete()


def protected(world: World, _: Place) -> None:
    protect(world.operator)
    enter(world.client, world.operator.email)


def half_signed_in(world: World, _: Place) -> None:
    world.client.logout()
    world.path["code"] = protect(world.operator)[0]
    enter(world.client, world.operator.email)


def fresh(world: World, _: Place) -> None:
    """Signed in by the form, a moment ago."""
    world.client.logout()
    enter(world.client, world.operator.email)


def fresh_with_app(world: World, place: Place) -> None:
    protect(world.operator)
    world.client.logout()
    codes = [code for one in world.operator.authenticator_set.all() if one.type == "recovery_codes"
             for code in one.wrap().get_unused_codes()]  # fmt: skip
    enter(world.client, world.operator.email)
    world.client.post("/sign-in/code/", {"code": codes[0]})


def without_password(world: World, place: Place) -> None:
    fresh(world, place)
    world.operator.set_unusable_password()
    world.operator.save()
    world.client.force_login(world.operator)


def elsewhere_too(world: World, place: Place) -> None:
    enter(Client(), world.operator.email)
    fresh(world, place)


def with_passkey(world: World, place: Place) -> None:
    fresh(world, place)
    row = world.operator.authenticator_set.create(type="webauthn", data={"name": "laptop"})
    world.path["pk"] = row.pk


def link_for_password(world: World, _: Place) -> None:
    page = world.client.post("/admin/access/help/", {"who": world.operator.email, "what": "link"}).content.decode()
    world.client.logout()
    key = page.split("/sign-in/new-password/")[1].split("/")[0]
    world.client.get(f"/sign-in/new-password/{key}/")
    world.path |= {"uidb36": key.split("-")[0], "key": "set-password"}


def locked_out(world: World, _: Place) -> None:
    lockouts.note("somebody@acme.example", "192.0.2.7")


def second_version(world: World, place: Place) -> None:
    policy = world.policy(place)
    policies.save_draft(policy, [{**RULES[0], "words": ["BETA-99"]}], **BY)
    policies.publish(policy, **BY)
    world.path["number"] = 1


def gone_through_the_wizard(world: World, _: Place) -> None:
    said = {
        "details": {"name": ["New"], "slug": ["new"], "time_zone": ["Asia/Tokyo"], "priority": ["0"]},
        "aliases": {"form-TOTAL_FORMS": ["0"], "form-INITIAL_FORMS": ["0"]},
        "limits": {"tokens_per_day": ["1000"]},
        "owner": {"email": [""]},
    }
    session = world.client.session
    session["new_tenant"] = said
    session.save()
    world.path["name"] = "summary"


def app_secret(world: World) -> Data:
    world.client.get("/account/second-factor/app/")
    return {"code": code_of(world.client.session["mfa.totp.secret"])}


NEW_PASSWORD = {"password1": "another traveller's permit", "password2": "another traveller's permit"}
RULES_AS_TEXT = {"do": "keep", "rules": json.dumps([{**RULES[0], "words": ["GAMMA-11"]}])}
OF_POLICIES = {
    "policy_new": Write({"name": "anew"}, again=False),
    "policy_draft": Write(RULES_AS_TEXT, page=None),
    "policy_publish": Write(page=None),
    "policy_discard": Write(page=None),
    "policy_everywhere": Write({"everywhere": "on"}, page=None),
    "policy_roll_back": Write(page=None, before=second_version),
    "policy_delete": Write({"name": "?"}, again=False),  # its own name: see changed()
}
OF_ALERTS = {
    "rule_new": Write(
        {
            "name": "more",
            "thresholds": ["80"],
            "limits": ["tokens_per_day"],
            "roles": ["owner"],
            "threshold": "5",
            "is_active": "on",
        },
        page=None,
        again=False,
    ),
    "rule": Write({"name": "renamed"}),
    "rule_delete": Write(page=None),
    "webhook_new": Write({"name": "more", "url": "https://hooks.example.com/more"}, again=False),
    "webhook_edit": Write({"url": "https://hooks.example.com/other"}),
    "webhook_rotate": Write(again=False),
    "webhook_test": Write(page=None, again=False),
    "webhook_delete": Write({"name": "?"}, again=False),  # its own name: see changed()
    "delivery_resend": Write(page=None, again=False),
}
WRITES: dict[str, Write] = {
    **OF_POLICIES,
    **{f"admin_{name}": write for name, write in OF_POLICIES.items()},
    **OF_ALERTS,
    **{f"admin_{name}": write for name, write in OF_ALERTS.items()},
    "export_new": Write(told=("export.asked",), again=False),
    "admin_export_new": Write(told=("export.asked",), again=False),
    "export_cancel": Write(page=None, before=own_files, told=("export.cancelled",)),
    "admin_export_cancel": Write(page=None, before=own_files, told=("export.cancelled",)),
    "admin_reconciliation_run": Write(page=None, again=False),
    "factor_name": Write({"name": "renamed"}, before=with_passkey),
    "sign_in": Write(
        lambda w: {"login": w.operator.email, "password": PASSWORD},
        before=lambda w, _: w.client.logout(),
        told=("person.signed_in",),
    ),
    "sign_out": Write(page=None, told=("person.signed_out",)),
    "mfa_authenticate": Write(lambda w: {"code": w.path["code"]}, before=half_signed_in, told=("person.signed_in",)),
    "account_reset_password_from_key": Write(NEW_PASSWORD, before=link_for_password, told=("person.password_changed",)),
    "account": Write({"name": "Renamed"}),
    "account_change_password": Write({"oldpassword": PASSWORD, **NEW_PASSWORD}, before=fresh, again=False),
    "account_set_password": Write(NEW_PASSWORD, before=without_password),
    "mfa_activate_totp": Write(app_secret, before=fresh, told=("person.second_factor_added",)),
    "mfa_deactivate_totp": Write(before=fresh_with_app, told=("person.second_factor_removed",)),
    "mfa_generate_recovery_codes": Write(before=fresh_with_app, told=("person.recovery_codes_renewed",), again=False),
    "mfa_remove_webauthn": Write(before=with_passkey, told=("person.second_factor_removed",)),
    "sessions": Write(page=None, before=elsewhere_too, told=("person.sessions_ended",)),
    "language": Write({"language": "ja", "next": "/"}, page=None, told=("person.changed",)),
    "invite": Write(
        {"name": "New", **dict.fromkeys(("password", "again"), PASSWORD)}, told=("member.joined", "person.signed_in")
    ),
    "admin_access_add": Write({"email": "new@sekisho.example"}, page="admin_access"),
    "admin_access_remove": Write(),
    "admin_access_rules": Write({"subjects": ["viewer"]}, page="admin_access"),
    "admin_access_help": Write({"who": "somebody@acme.example", "what": "factor"}, page="admin_access"),
    "admin_access_unlock": Write({"email": "somebody@acme.example", "address": "192.0.2.7"}, page=None, before=locked_out),
    "admin_tenant_new_step": Write(page=None, before=gone_through_the_wizard, told=("tenant.created",)),
    "admin_tenant_priority": Write({"priority": "7"}, page="admin_tenant"),
    "admin_tenant_plan": Write({"plan": "acme-plan"}),
    "admin_tenant_suspend": Write({"reason": "late"}),
    "admin_tenant_resume": Write(page=None, before=suspended),
    "admin_tenant_delete": Write({"slug": "acme"}, told=("tenant.deleted",)),
    "admin_tenant_view": Write(page=None),
    "admin_viewing_stop": Write(page=None, before=viewing),
    "admin_tenant_limits": Write({"tokens_per_day": "500"}),
    "admin_tenant_alias_limits": Write({"tokens_per_day": "500"}),
    "admin_plan_new": Write({"name": "more", "tokens_per_day": "500"}, again=False),
    "admin_plan": Write({"name": "renamed", "tokens_per_day": "500"}),
    "admin_plan_delete": Write(page=None),
    "admin_backend_new": Write({"name": "more", "url": "http://192.0.2.9:8000"}, again=False),
    "admin_backend_edit": Write({"url": "http://192.0.2.9:8000"}),
    "admin_backend_drain": Write(page=None),
    "admin_backend_resume": Write(page=None, before=drained),
    "admin_backend_delete": Write(before=unused_backend),
    "admin_deployment_new": Write({"name": "more", "served_model": "tiny"}, again=False),
    "admin_deployment": Write({"served_model": "tiny-2"}),
    "admin_deployment_delete": Write(before=unused_deployment),
    "admin_alias_new": Write(lambda w: {"name": "more", "deployment": Deployment.objects.get().pk}, again=False),
    "admin_alias": Write({"max_output_tokens": "99", "display_name_en": "Renamed"}),
    "admin_alias_delete": Write({"name": "acme-general"}),
    "admin_audit_verify": Write(page=None, told=("audit.verified",), again=False),
    "key_new": Write({"name": "more", "tokens_per_day": "5"}, again=False, told=("key.issued",)),
    "key_edit": Write({"name": "renamed", "tokens_per_day": "5", "requests_per_minute": ""}, told=("key.changed",)),
    "key_rotate": Write(again=False, told=("key.rotated",)),
    "key_revoke": Write(lambda w: {"name": w.key().name}, told=("key.revoked",), again=False),
    "member_invite": Write({"email": "new@acme.example", "role": "viewer"}, again=False),
    "member": Write({"role": "developer"}),
    "member_remove": Write(),
    "invitation_withdraw": Write(page="members"),
    "settings": Write({"name": "Renamed", "time_zone": "Europe/Paris"}),
}
ALIKE = {"account_login": "sign_in", "account_logout": "sign_out"}  # two names of one URL
# What the URL says besides.
ASKED = {
    "admin_alias_new": "?tenant=acme",
    "rule_new": "?kind=limit",
    "admin_rule_new": "?kind=backend_down",
    "export_new": "?of=usage&kind=csv",
    "admin_export_new": "?of=usage&kind=csv",
}
EACH = [pytest.param(POSTS[name], WRITES[name], id=name) for name in WRITES if name in POSTS]


@pytest.fixture
def world(client: Client, acme: Tenant, operator: User, valkey: redis.Redis) -> World:
    things = furnish(acme)
    client.force_login(operator)
    return World(client, acme, things, operator, valkey)


def url_of(world: World, place: Place) -> str:
    if place.name == "invite":
        return world.path["invite"]
    own = {**world.things.get(place.name, {}), **world.path}
    url = place.url({**world.things, place.name: own})
    return url + ASKED.get(place.name, "")


def prepared(world: World, place: Place, write: Write) -> tuple[str, Fields]:
    if place.name == "invite":
        page = world.client.post("/t/acme/members/invite/", {"email": "new@acme.example", "role": "viewer"}).content.decode()
        world.path["invite"] = re.findall(r"http://testserver(/invite/[\w-]{40,}/)", page)[0]
        world.client.logout()
    write.before(world, place)
    url = url_of(world, place)
    shown: Fields = {}
    if write.page is not None:
        page = url if write.page == "" else POSTS.get(write.page, by_name(write.page)).url(world.things)
        shown = filled(world.client, page, url)
    return url, shown


def by_name(name: str) -> Place:
    return next(place for place in places() if place.name == name)


def changed(world: World, place: Place, write: Write) -> Data:
    if place.name.endswith("policy_delete"):
        return {"name": world.policy(place).name}
    if place.name.endswith("webhook_delete"):
        return {"name": Webhook.objects.get(pk=world.things[place.name.removesuffix("_delete")]["pk"]).name}
    return write.changes(world) if callable(write.changes) else write.changes


def events() -> list[str]:
    return list(AuditEvent.objects.order_by("sequence").values_list("verb", flat=True))


def test_every_url_that_takes_a_post_stands_in_one_table() -> None:
    assert sorted(POSTS) == sorted([*WRITES, *EXEMPT, *ALIKE])


@pytest.mark.parametrize(("place", "write"), EACH)
def test_a_write_leaves_one_event_and_the_same_again_none(world: World, place: Place, write: Write) -> None:
    url, shown = prepared(world, place, write)
    data = {**shown, **changed(world, place, write)}
    before = events()
    answer = world.client.post(url, data)
    assert answer.status_code in (200, 302), answer.status_code
    told = events()[len(before) :]
    if write.told == ("*",):
        assert len(told) == 1, told
    else:
        assert tuple(told) == write.told
    if write.again:
        world.client.post(url, data)
        assert events() == [*before, *told]


@pytest.mark.parametrize(("place", "write"), [case for case in EACH if case.values[1].page == ""])
def test_a_form_that_is_sent_as_it_is_shown_changes_nothing(world: World, place: Place, write: Write) -> None:
    if not write.changes:
        pytest.skip("its button alone is the act")
    url, shown = prepared(world, place, write)
    before = events()
    assert world.client.post(url, shown).status_code in (200, 302, 409)
    after = events()[len(before) :]
    assert [verb for verb in after if verb not in ("person.sign_in_failed", "tenant.suspended")] == []


@pytest.mark.parametrize(("place", "write"), [case for case in EACH if case.values[0].access not in ("public", "signed_in")])
def test_what_is_refused_leaves_no_event(world: World, place: Place, write: Write, globex_admin: User) -> None:
    url, shown = prepared(world, place, write)
    data = {**shown, **changed(world, place, write)}
    before = events()
    viewer = User.objects.create_user("reader@acme.example")
    Membership.objects.create(tenant=world.acme, user=viewer, role=Role.VIEWER)
    for who in (globex_admin, viewer) if place.access != Action.VIEW else (globex_admin,):
        other = Client()
        other.force_login(who)
        assert other.post(url, data).status_code in (403, 404)
    assert Client().post(url, data).status_code == 302
    assert events() == before
