"""The portal's addresses. Each view declares in portal/access.py's words who may open it."""

from django.urls import path

from portal.views import (
    aliases,
    audit,
    health,
    keys,
    language,
    limits,
    policies,
    policy_drafts,
    policy_reports,
    reports,
    sessions,
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
    path("t/<slug:slug>/audit/", audit.index.of_tenant, name="audit"),
    path("t/<slug:slug>/audit/csv/", audit.download.of_tenant, name="audit_csv"),
    path("t/<slug:slug>/audit/<int:sequence>/", audit.show.of_tenant, name="audit_event"),
    path("admin/audit/", audit.index.of_platform, name="admin_audit"),
    path("admin/audit/csv/", audit.download.of_platform, name="admin_audit_csv"),
    path("admin/audit/verify/", audit.verify, name="admin_audit_verify"),
    path("admin/audit/<int:sequence>/", audit.show.of_platform, name="admin_audit_event"),
]

# The same pages for the policies of a tenant and for those of the platform.
for address, pages, name in (
    ("", policies.index, "policies"),
    ("new/", policies.new, "policy_new"),
    ("<str:name>/", policies.show, "policy"),
    ("<str:name>/draft/", policy_drafts.edit, "policy_draft"),
    ("<str:name>/publish/", policies.publish, "policy_publish"),
    ("<str:name>/discard/", policies.discard, "policy_discard"),
    ("<str:name>/everywhere/", policies.everywhere, "policy_everywhere"),
    ("<str:name>/roll-back/<int:number>/", policies.roll_back, "policy_roll_back"),
    ("<str:name>/delete/", policies.delete, "policy_delete"),
    ("<str:name>/diff/", policy_reports.compare, "policy_diff"),
    ("<str:name>/report/", policy_reports.report, "policy_report"),
):
    urlpatterns += [
        path(f"t/<slug:slug>/policies/{address}", pages.of_tenant, name=name),
        path(f"admin/policies/{address}", pages.of_platform, name=f"admin_{name}"),
    ]
