"""The portal's addresses. Each view declares in portal/access.py's words who may open it."""

from django.urls import path

from portal.views import (
    admin_aliases,
    aliases,
    audit,
    backends,
    deployments,
    health,
    keys,
    language,
    limits,
    policies,
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
    # No name begins with an underscore: what is not about one thing cannot be taken for it.
    path("admin/backends/", backends.index, name="admin_backends"),
    path("admin/backends/_live/", backends.live, name="admin_backends_live"),
    path("admin/backends/_new/", backends.new, name="admin_backend_new"),
    path("admin/backends/<str:name>/", backends.show, name="admin_backend"),
    path("admin/backends/<str:name>/live/", backends.live_one, name="admin_backend_live"),
    path("admin/backends/<str:name>/edit/", backends.edit, name="admin_backend_edit"),
    path("admin/backends/<str:name>/drain/", backends.drain, name="admin_backend_drain"),
    path("admin/backends/<str:name>/resume/", backends.resume, name="admin_backend_resume"),
    path("admin/backends/<str:name>/delete/", backends.delete, name="admin_backend_delete"),
    path("admin/deployments/", deployments.index, name="admin_deployments"),
    path("admin/deployments/_new/", deployments.new, name="admin_deployment_new"),
    path("admin/deployments/<str:name>/", deployments.edit, name="admin_deployment"),
    path("admin/deployments/<str:name>/delete/", deployments.delete, name="admin_deployment_delete"),
    path("admin/aliases/", admin_aliases.index, name="admin_aliases"),
    path("admin/aliases/_new/", admin_aliases.new, name="admin_alias_new"),
    path("admin/aliases/<uuid:pk>/", admin_aliases.edit, name="admin_alias"),
    path("admin/aliases/<uuid:pk>/delete/", admin_aliases.delete, name="admin_alias_delete"),
    path("admin/health/", health.index, name="admin_health"),
    path("t/<slug:slug>/", tenants.show, name="tenant"),
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
