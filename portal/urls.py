"""The portal's addresses. Each view declares in portal/access.py's words who may open it."""

from django.urls import path, re_path

from portal.views import access, account, aliases, audit, health, keys, language, limits, policies, reports, sessions, tenants

handler400 = "portal.views.errors.bad_request"
handler403 = "portal.views.errors.forbidden"
handler404 = "portal.views.errors.not_found"
handler429 = "portal.views.errors.too_many"
handler500 = "portal.views.errors.server_error"

urlpatterns = [
    path("", tenants.home, name="home"),
    path("livez", health.live, name="live"),
    path("sign-in/", sessions.sign_in, name="sign_in"),
    path("sign-in/code/", sessions.second_factor, name="mfa_authenticate"),
    path("sign-in/passkey/", sessions.by_passkey, name="mfa_login_webauthn"),
    path("sign-in/closed/", sessions.closed, name="account_inactive"),
    path("sign-in/forgotten/", sessions.forgotten, name="account_reset_password"),
    path("sign-in/forgotten/sent/", sessions.forgotten_sent, name="account_reset_password_done"),
    re_path(
        r"^sign-in/new-password/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>[0-9A-Za-z-]+)/$",
        sessions.new_password,
        name="account_reset_password_from_key",
    ),
    path("sign-in/new-password/done/", sessions.new_password_set, name="account_reset_password_from_key_done"),
    path("sign-in/with/cancelled/", sessions.provider_cancelled, name="socialaccount_login_cancelled"),
    path("sign-in/with/failed/", sessions.provider_failed, name="socialaccount_login_error"),
    path("sign-in/with/<slug:provider_id>/", sessions.by_provider, name="openid_connect_login"),
    path("sign-in/with/<slug:provider_id>/answer/", sessions.provider_answer, name="openid_connect_callback"),
    path("sign-out/", sessions.sign_out, name="sign_out"),
    # The names by which allauth finds both.
    path("sign-in/", sessions.sign_in, name="account_login"),
    path("sign-out/", sessions.sign_out, name="account_logout"),
    path("account/", account.profile, name="account"),
    path("account/password/", account.password, name="account_change_password"),
    path("account/password/set/", account.password_set, name="account_set_password"),
    path("account/confirm/", account.confirm, name="account_reauthenticate"),
    path("account/confirm/code/", account.confirm_code, name="mfa_reauthenticate"),
    path("account/confirm/passkey/", account.confirm_passkey, name="mfa_reauthenticate_webauthn"),
    path("account/second-factor/", account.factors, name="mfa_index"),
    path("account/second-factor/app/", account.app_add, name="mfa_activate_totp"),
    path("account/second-factor/app/remove/", account.app_remove, name="mfa_deactivate_totp"),
    path("account/second-factor/codes/", account.codes, name="mfa_view_recovery_codes"),
    path("account/second-factor/codes/file/", account.codes_download, name="mfa_download_recovery_codes"),
    path("account/second-factor/codes/new/", account.codes_renew, name="mfa_generate_recovery_codes"),
    path("account/passkeys/", account.passkeys, name="mfa_list_webauthn"),
    path("account/passkeys/add/", account.passkey_add, name="mfa_add_webauthn"),
    path("account/passkeys/<int:pk>/remove/", account.passkey_remove, name="mfa_remove_webauthn"),
    path("account/sessions/", account.own_sessions, name="sessions"),
    path("admin/access/", access.index, name="admin_access"),
    path("admin/access/operators/", access.add_operator, name="admin_access_add"),
    path("admin/access/operators/<uuid:pk>/remove/", access.remove_operator, name="admin_access_remove"),
    path("admin/access/rules/", access.set_rules, name="admin_access_rules"),
    path("admin/access/help/", access.help_in, name="admin_access_help"),
    path("admin/access/unlock/", access.unlock, name="admin_access_unlock"),
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
