"""The portal's addresses. Each view declares in portal/access.py's words who may open it."""

from django.urls import path

from portal.views import aliases, audit, health, keys, language, limits, policies, reports, requests, sessions, tenants, usage

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
    path("admin/usage/", usage.index_of_all, name="admin_usage"),
    path("admin/usage/csv/", usage.download_of_all, {"kind": "csv"}, name="admin_usage_csv"),
    path("admin/usage/ndjson/", usage.download_of_all, {"kind": "ndjson"}, name="admin_usage_ndjson"),
    path("t/<slug:slug>/", tenants.show, name="tenant"),
    path("t/<slug:slug>/now/", tenants.now, name="tenant_now"),
    path("t/<slug:slug>/usage/", usage.index, name="usage"),
    path("t/<slug:slug>/usage/csv/", usage.download, {"kind": "csv"}, name="usage_csv"),
    path("t/<slug:slug>/usage/ndjson/", usage.download, {"kind": "ndjson"}, name="usage_ndjson"),
    path("t/<slug:slug>/requests/", requests.index, name="requests"),
    path("t/<slug:slug>/requests/<uuid:pk>/", requests.show, name="request"),
    path("t/<slug:slug>/keys/", keys.index, name="keys"),
    path("t/<slug:slug>/keys/new/", keys.new, name="key_new"),
    path("t/<slug:slug>/keys/<uuid:pk>/", keys.show, name="key"),
    path("t/<slug:slug>/keys/<uuid:pk>/edit/", keys.edit, name="key_edit"),
    path("t/<slug:slug>/keys/<uuid:pk>/rotate/", keys.rotate, name="key_rotate"),
    path("t/<slug:slug>/keys/<uuid:pk>/revoke/", keys.revoke, name="key_revoke"),
    path("t/<slug:slug>/aliases/", aliases.index, name="aliases"),
    path("t/<slug:slug>/limits/", limits.index, name="limits"),
    path("t/<slug:slug>/audit/", audit.index, name="audit"),
    path("t/<slug:slug>/audit/csv/", audit.download, name="audit_csv"),
    path("t/<slug:slug>/policies/", policies.index, name="policies"),
    path("t/<slug:slug>/policies/new/", policies.new, name="policy_new"),
    path("t/<slug:slug>/policies/<str:name>/", policies.show, name="policy"),
    path("t/<slug:slug>/policies/<str:name>/draft/", policies.edit, name="policy_draft"),
    path("t/<slug:slug>/policies/<str:name>/publish/", policies.publish, name="policy_publish"),
    path("t/<slug:slug>/policies/<str:name>/discard/", policies.discard, name="policy_discard"),
    path("t/<slug:slug>/policies/<str:name>/roll-back/<int:number>/", policies.roll_back, name="policy_roll_back"),
]
