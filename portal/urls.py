"""The portal's addresses. Each view declares in portal/access.py's words who may open it."""

from django.urls import path

from portal.views import (
    aliases,
    audit,
    docs,
    health,
    invitations,
    keys,
    language,
    limits,
    members,
    policies,
    reports,
    sessions,
    tenant_settings,
    tenants,
)

handler400 = "portal.views.errors.bad_request"
handler403 = "portal.views.errors.forbidden"
handler404 = "portal.views.errors.not_found"
handler500 = "portal.views.errors.server_error"

urlpatterns = [
    path("", tenants.home, name="home"),
    path("livez", health.live, name="live"),
    path("sign-in/", sessions.sign_in, name="sign_in"),
    path("sign-out/", sessions.sign_out, name="sign_out"),
    path("language/", language.switch, name="language"),
    path("invite/<str:token>/", invitations.accept, name="invite"),
    path("internal/reports/", reports.answer, name="reports"),
    path("t/<slug:slug>/", tenants.show, name="tenant"),
    path("t/<slug:slug>/keys/", keys.index, name="keys"),
    path("t/<slug:slug>/keys/new/", keys.new, name="key_new"),
    path("t/<slug:slug>/keys/<uuid:pk>/", keys.show, name="key"),
    path("t/<slug:slug>/keys/<uuid:pk>/edit/", keys.edit, name="key_edit"),
    path("t/<slug:slug>/keys/<uuid:pk>/rotate/", keys.rotate, name="key_rotate"),
    path("t/<slug:slug>/keys/<uuid:pk>/revoke/", keys.revoke, name="key_revoke"),
    path("t/<slug:slug>/aliases/", aliases.index, name="aliases"),
    path("t/<slug:slug>/limits/", limits.index, name="limits"),
    path("t/<slug:slug>/members/", members.index, name="members"),
    path("t/<slug:slug>/members/invite/", members.invite, name="member_invite"),
    path("t/<slug:slug>/members/<int:pk>/", members.show, name="member"),
    path("t/<slug:slug>/members/<int:pk>/remove/", members.remove, name="member_remove"),
    path("t/<slug:slug>/members/invitations/<uuid:pk>/withdraw/", members.withdraw, name="invitation_withdraw"),
    path("t/<slug:slug>/audit/", audit.index, name="audit"),
    path("t/<slug:slug>/audit/csv/", audit.download, name="audit_csv"),
    path("t/<slug:slug>/settings/", tenant_settings.edit, name="settings"),
    path("t/<slug:slug>/docs/", docs.index, name="docs"),
    path("t/<slug:slug>/policies/", policies.index, name="policies"),
    path("t/<slug:slug>/policies/new/", policies.new, name="policy_new"),
    path("t/<slug:slug>/policies/<str:name>/", policies.show, name="policy"),
    path("t/<slug:slug>/policies/<str:name>/draft/", policies.edit, name="policy_draft"),
    path("t/<slug:slug>/policies/<str:name>/publish/", policies.publish, name="policy_publish"),
    path("t/<slug:slug>/policies/<str:name>/discard/", policies.discard, name="policy_discard"),
    path("t/<slug:slug>/policies/<str:name>/roll-back/<int:number>/", policies.roll_back, name="policy_roll_back"),
]
