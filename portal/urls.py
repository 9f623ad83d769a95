"""The portal's addresses. Each view declares in portal/access.py's words who may open it."""

from django.urls import path

from portal.views import (
    admin_limits,
    admin_tenants,
    aliases,
    audit,
    health,
    keys,
    language,
    limits,
    new_tenant,
    policies,
    quota_plans,
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
    path("admin/tenants/", admin_tenants.index, name="admin_tenants"),
    path("admin/tenants/new/", new_tenant.step, name="admin_tenant_new"),
    path("admin/tenants/new/<slug:name>/", new_tenant.step, name="admin_tenant_new_step"),
    path("admin/tenants/<slug:tenant_slug>/", admin_tenants.show, name="admin_tenant"),
    path("admin/tenants/<slug:tenant_slug>/priority/", admin_tenants.set_priority, name="admin_tenant_priority"),
    path("admin/tenants/<slug:tenant_slug>/plan/", admin_tenants.set_plan, name="admin_tenant_plan"),
    path("admin/tenants/<slug:tenant_slug>/suspend/", admin_tenants.suspend, name="admin_tenant_suspend"),
    path("admin/tenants/<slug:tenant_slug>/resume/", admin_tenants.resume, name="admin_tenant_resume"),
    path("admin/tenants/<slug:tenant_slug>/view/", admin_tenants.view_as, name="admin_tenant_view"),
    path("admin/tenants/<slug:tenant_slug>/limits/", admin_limits.of_tenant, name="admin_tenant_limits"),
    path("admin/tenants/<slug:tenant_slug>/aliases/<uuid:pk>/limits/", admin_limits.of_alias, name="admin_tenant_alias_limits"),
    path("admin/viewing/stop/", admin_tenants.stop_viewing, name="admin_viewing_stop"),
    path("admin/plans/", quota_plans.index, name="admin_plans"),
    path("admin/plans/new/", quota_plans.new, name="admin_plan_new"),
    path("admin/plans/<uuid:pk>/", quota_plans.show, name="admin_plan"),
    path("admin/plans/<uuid:pk>/delete/", quota_plans.delete, name="admin_plan_delete"),
    path("t/<slug:slug>/", tenants.show, name="tenant"),
    path("t/<slug:slug>/keys/", keys.index, name="keys"),
    path("t/<slug:slug>/keys/new/", keys.new, name="key_new"),
    path("t/<slug:slug>/keys/<uuid:pk>/", keys.show, name="key"),
    path("t/<slug:slug>/keys/<uuid:pk>/edit/", keys.edit, name="key_edit"),
    path("t/<slug:slug>/keys/<uuid:pk>/rotate/", keys.rotate, name="key_rotate"),
    path("t/<slug:slug>/keys/<uuid:pk>/revoke/", keys.revoke, name="key_revoke"),
    path("t/<slug:slug>/keys/<uuid:pk>/first-use/", keys.first_use, name="key_first_use"),
    path("t/<slug:slug>/aliases/", aliases.index, name="aliases"),
    path("t/<slug:slug>/limits/", limits.index, name="limits"),
    path("t/<slug:slug>/limits/part/", limits.part, name="limits_part"),
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
