"""The pages of members: listed, invited, changed, removed; and who may not."""

import re
from collections.abc import Callable
from html import unescape

import pytest
from allauth.mfa.models import Authenticator
from django.core import mail
from django.test import Client, override_settings
from django.utils import translation
from pytest_django import DjangoAssertNumQueries

from accounts import inviting, issuing, playground
from accounts.models import AuditEvent, Invitation, Membership, Tenant, User
from accounts.roles import ALLOWED, Action, Role
from portal.celery import app
from portal.wording import MEMBERS_MAY
from tests.portal.letterbox import broker_out, deliver, queued

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
NEW = "new@acme.example"
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def admin(signed_in: SignedIn, acme_admin: User) -> Client:
    return signed_in(acme_admin)


@pytest.fixture
def owner(signed_in: SignedIn, acme_owner: User) -> Client:
    return signed_in(acme_owner)


def page_of(client: Client, path: str = "", status: int = 200, **options: object) -> str:
    answer = client.get(f"/t/acme/members/{path}", **options)
    assert answer.status_code == status
    return answer.content.decode()


def post(client: Client, path: str, **fields: object) -> str:
    answer = client.post(f"/t/acme/members/{path}", fields, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def link_of(page: str) -> str:
    found = re.search(r'<code id="link">([^<]*)</code>', page)
    assert found is not None
    return found[1]


def member_of(tenant: Tenant, user: User) -> Membership:
    return Membership.objects.get(tenant=tenant, user=user)


def test_every_right_has_words() -> None:
    assert set(MEMBERS_MAY) == set(Action)


def test_the_table_of_roles_says_what_the_matrix_says(signed_in: SignedIn, acme_viewer: User) -> None:
    page = page_of(signed_in(acme_viewer))
    rows = re.findall(r'<th role="rowheader" scope="row">([^<]*)</th>(.*?)</tr>', page, re.DOTALL)
    assert [unescape(words) for words, _cells in rows] == [str(words) for words in MEMBERS_MAY.values()]
    for (_words, cells), action in zip(rows, Action, strict=True):
        assert ["Can" in text_of(cell).split() for cell in cells.split("</td>")[:-1]] == [
            action in ALLOWED[role] for role in Role
        ]


def test_a_viewer_sees_the_members_and_can_do_nothing(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, acme_owner: User
) -> None:
    inviting.invite(acme, NEW, Role.ADMIN, actor=acme_owner)
    client, owner = signed_in(acme_viewer), member_of(acme, acme_owner)
    page = page_of(client)
    assert acme_owner.email in page
    assert NEW not in page
    assert "/members/invite/" not in page
    invitation = Invitation.objects.get()
    for path in ("invite/", f"{owner.pk}/", f"{owner.pk}/remove/"):
        page_of(client, path, 403)
        assert client.post(f"/t/acme/members/{path}", {"role": "viewer", "email": NEW}).status_code == 403
    assert client.post(f"/t/acme/members/invitations/{invitation.pk}/withdraw/").status_code == 403
    assert member_of(acme, acme_owner).role == Role.OWNER
    assert Invitation.objects.open().count() == 1


def test_a_strangers_members_are_404(admin: Client, globex: Tenant, globex_admin: User) -> None:
    member = member_of(globex, globex_admin)
    invitation, _token = inviting.invite(globex, NEW, Role.VIEWER, actor=globex_admin)
    for tenant in ("acme", "globex"):
        for path in (f"{member.pk}/", f"{member.pk}/remove/"):
            assert admin.get(f"/t/{tenant}/members/{path}").status_code == 404
            assert admin.post(f"/t/{tenant}/members/{path}", {"role": "viewer"}).status_code == 404
        assert admin.post(f"/t/{tenant}/members/invitations/{invitation.pk}/withdraw/").status_code == 404
    assert globex_admin.email not in page_of(admin)
    assert member_of(globex, globex_admin).role == Role.ADMIN
    assert Invitation.objects.open().count() == 1


def test_an_invitation_shows_its_link_once(admin: Client, acme: Tenant, acme_admin: User) -> None:
    page = post(admin, "invite/", email=NEW, role="developer")
    link = link_of(page)
    invitation = Invitation.objects.get()
    assert inviting.find(link.rstrip("/").rsplit("/", 1)[1]) == invitation
    assert link.startswith("http://testserver/invite/")
    assert "hand it over yourself" in text_of(page).lower()
    listed = page_of(admin)
    assert NEW in listed
    assert link not in listed
    event = AuditEvent.objects.for_tenant(acme).get()
    assert (event.verb, event.actor, event.after["role"]) == ("member.invited", acme_admin, "developer")
    assert mail.outbox == []


@override_settings(IS_MAIL_CONFIGURED=True, DEFAULT_FROM_EMAIL="sekisho@acme.example")
def test_the_link_goes_by_mail_where_mail_is_configured(admin: Client, acme: Tenant) -> None:
    Tenant.objects.update(name="Acme\nBcc: everybody@globex.example", language="en")
    page = post(admin, "invite/", email=NEW, role="viewer")
    assert "It is on its way to" in page
    ((task, arguments),) = queued()
    assert link_of(page) not in str(arguments)  # in the queue it opens nothing
    app.loader.import_default_modules()  # as the worker does
    app.tasks[task](*arguments)
    (letter,) = mail.outbox
    assert letter.to == [NEW]
    assert letter.subject == "Invitation to Acme Bcc: everybody@globex.example on Sekisho"
    assert link_of(page) in letter.body
    Tenant.objects.update(language="ja")
    post(admin, "invite/", email=NEW, role="viewer")
    deliver()
    assert "招待" in mail.outbox[1].subject


@override_settings(IS_MAIL_CONFIGURED=True)
def test_an_invitation_that_is_withdrawn_meanwhile_is_not_sent(admin: Client) -> None:
    post(admin, "invite/", email=NEW, role="viewer")
    admin.post(f"/t/acme/members/invitations/{Invitation.objects.get().pk}/withdraw/")
    deliver()
    assert mail.outbox == []


@override_settings(IS_MAIL_CONFIGURED=True)
def test_a_link_that_cannot_be_mailed_is_shown_all_the_same(admin: Client) -> None:
    with broker_out():
        page = post(admin, "invite/", email=NEW, role="viewer")
    assert "could not be sent" in page
    assert "/invite/" in link_of(page)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"email": "nobody", "role": "viewer"}, "Enter a valid email address."),
        ({"email": "", "role": "viewer"}, "This field is required."),
        ({"email": NEW}, "Choose a role."),
        ({"email": NEW, "role": "owner"}, "Choose one of these roles."),
        ({"email": "ADMIN@acme.example", "role": "viewer"}, "is a member already"),
    ],
)
def test_a_wrong_invitation_says_what_to_do_and_keeps_what_was_typed(admin: Client, fields: dict[str, str], said: str) -> None:
    page = post(admin, "invite/", **fields)
    assert said in unescape(page)
    assert f'value="{fields["email"]}"' in page or not fields["email"]
    assert not Invitation.objects.exists()
    assert not AuditEvent.objects.exists()


def test_an_admin_is_not_offered_to_make_owners(admin: Client) -> None:
    assert 'value="owner"' not in page_of(admin, "invite/")


def test_an_owner_is_offered_every_role(owner: Client) -> None:
    page = page_of(owner, "invite/")
    assert all(f'value="{role}"' in page for role in Role.values)


def test_an_admin_changes_no_owner(admin: Client, acme: Tenant, acme_owner: User) -> None:
    member = member_of(acme, acme_owner)
    assert "Owners alone change owners" in page_of(admin)
    for path in (f"{member.pk}/", f"{member.pk}/remove/"):
        page_of(admin, path, 403)
        assert admin.post(f"/t/acme/members/{path}", {"role": "viewer"}).status_code == 403
    assert member_of(acme, acme_owner).role == Role.OWNER


def test_a_role_is_changed(owner: Client, acme: Tenant, acme_viewer: User) -> None:
    member = member_of(acme, acme_viewer)
    page = post(owner, f"{member.pk}/", role="admin")
    assert "it counts from the next page" in page
    assert member_of(acme, acme_viewer).role == Role.ADMIN
    assert [event.verb for event in AuditEvent.objects.for_tenant(acme)] == ["member.changed"]
    assert "Nothing was changed." in post(owner, f"{member.pk}/", role="admin")
    assert AuditEvent.objects.count() == 1
    assert "Choose one of these roles." in post(owner, f"{member.pk}/", role="emperor")


def test_a_new_role_counts_at_once(client: Client, acme: Tenant, acme_viewer: User, acme_owner: User) -> None:
    other = Client()
    other.force_login(acme_viewer)
    assert other.get("/t/acme/members/invite/").status_code == 403
    client.force_login(acme_owner)
    post(client, f"{member_of(acme, acme_viewer).pk}/", role="admin")
    assert other.get("/t/acme/members/invite/").status_code == 200


def test_removing_tells_first_what_stays(owner: Client, acme: Tenant, acme_developer: User) -> None:
    issuing.issue(acme, issuing.Terms("theirs"), actor=acme_developer)
    playground.renew(acme, acme_developer, actor=acme_developer)  # the portal's own: it ends with the membership
    member = member_of(acme, acme_developer)
    page = text_of(page_of(owner, f"{member.pk}/remove/"))
    assert "1 working key that they made stays with the tenant" in page
    assert Membership.objects.filter(pk=member.pk).exists()
    assert "is no member any more" in post(owner, f"{member.pk}/remove/")
    assert not Membership.objects.filter(pk=member.pk).exists()
    assert acme.keys.usable().filter(is_playground=False).count() == 1
    assert AuditEvent.objects.for_tenant(acme).filter(verb="member.deleted").count() == 1
    assert owner.get(f"/t/acme/members/{member.pk}/remove/").status_code == 404


def test_who_leaves_sees_the_tenant_no_more(admin: Client, acme: Tenant, acme_admin: User) -> None:
    member = member_of(acme, acme_admin)
    assert "This is you" in page_of(admin, f"{member.pk}/remove/")
    answer = admin.post(f"/t/acme/members/{member.pk}/remove/")
    assert (answer.status_code, answer["location"]) == (302, "/")
    assert admin.get("/t/acme/members/").status_code == 404


def test_the_last_owner_is_told_to_make_another_first(owner: Client, acme: Tenant, acme_owner: User) -> None:
    member = member_of(acme, acme_owner)
    for path in (f"{member.pk}/", f"{member.pk}/remove/"):
        assert "Make somebody else an owner first" in page_of(owner, path)
        assert "somebody else an owner first" in post(owner, path, role="viewer")
    assert member_of(acme, acme_owner).role == Role.OWNER
    assert not AuditEvent.objects.exists()


def test_an_invitation_is_withdrawn(admin: Client, acme: Tenant, acme_admin: User) -> None:
    invitation, _token = inviting.invite(acme, NEW, Role.VIEWER, actor=acme_admin)
    assert "opens nothing any more" in post(admin, f"invitations/{invitation.pk}/withdraw/")
    assert not Invitation.objects.open().exists()
    assert "accepted or withdrawn before" in post(admin, f"invitations/{invitation.pk}/withdraw/")
    assert AuditEvent.objects.for_tenant(acme).filter(verb="member.invitation_withdrawn").count() == 1
    assert admin.get(f"/t/acme/members/invitations/{invitation.pk}/withdraw/").status_code == 405


def test_members_are_found_by_name_address_and_role(admin: Client, acme: Tenant, acme_owner: User, acme_viewer: User) -> None:
    User.objects.filter(pk=acme_owner.pk).update(name="Grace")
    main = page_of(admin, "?q=grac").split("<main")[1]
    assert acme_owner.email in main
    assert acme_viewer.email not in main
    assert acme_viewer.email in page_of(admin, "?role=viewer").split("<main")[1]
    assert "Nobody like this" in page_of(admin, "?q=nobody-at-all")
    assert "Nobody like this" not in page_of(admin, "?role=nonsense")


def test_stored_markup_stays_text(owner: Client, acme: Tenant, acme_viewer: User) -> None:
    User.objects.filter(pk=acme_viewer.pk).update(name=EVIL)
    Tenant.objects.update(name=EVIL)
    member = member_of(acme, acme_viewer)
    for path in ("", "invite/", f"{member.pk}/", f"{member.pk}/remove/"):
        assert EVIL not in page_of(owner, path)
    assert EVIL not in post(owner, "invite/", email=NEW, role="viewer")


def test_a_list_of_any_length_costs_the_same(
    admin: Client, acme: Tenant, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    users = [User.objects.create_user(f"{number}@acme.example") for number in range(60)]
    Membership.objects.bulk_create(Membership(tenant=acme, user=user, role=Role.VIEWER) for user in users)
    for number in range(30):
        inviting.invite(acme, f"new-{number}@acme.example", Role.VIEWER, actor=None, actor_label="test")
    with django_assert_max_num_queries(15):
        page = page_of(admin)
    assert "61 in all" in page


def test_pages_are_japanese_where_they_are_asked_to_be(owner: Client, acme: Tenant, acme_viewer: User) -> None:
    member = member_of(acme, acme_viewer)
    with translation.override("en"):
        for path in ("", "invite/", f"{member.pk}/", f"{member.pk}/remove/"):
            page = page_of(owner, path, headers={"accept-language": "ja"})
            assert '<html lang="ja"' in page
            assert "メンバー" in page


def test_list_tells_who_has_a_second_factor_to_those_who_may_ask_for_it(
    signed_in: SignedIn, acme_owner: User, acme_viewer: User
) -> None:
    Authenticator.objects.bulk_create(
        [
            Authenticator(user=acme_owner, type=Authenticator.Type.TOTP, data={}),
            Authenticator(user=acme_viewer, type=Authenticator.Type.RECOVERY_CODES, data={}),  # alone they are none
        ]
    )
    table = signed_in(acme_owner).get("/t/acme/members/").content.decode().split("<tbody")[1]
    rows = {email: table.split(email)[1].split("</tr>")[0] for email in (acme_owner.email, acme_viewer.email)}
    assert "Set up" in rows[acme_owner.email]
    assert "Set up" not in rows[acme_viewer.email]
    assert "Second factor" not in signed_in(acme_viewer).get("/t/acme/members/").content.decode().split("<table")[1]
