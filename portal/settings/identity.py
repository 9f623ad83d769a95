"""How people sign in: django-allauth does it, django-axes counts who guesses. Part of the portal's profile."""

from datetime import timedelta
from typing import Any

from portal.settings import env

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # first: it refuses whom it has locked out before a password is looked at
    "allauth.account.auth_backends.AuthenticationBackend",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
PASSWORD_RESET_TIMEOUT = 24 * 3600  # seconds a link for a new password works
LOGIN_URL = "sign_in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign_in"

ACCOUNT_ADAPTER = "portal.identity.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "none"  # an address is given by who invites, or vouched for by a provider
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False
ACCOUNT_SESSION_REMEMBER = True  # as long as SESSION_COOKIE_AGE says
# Django's own: allauth's writes a table of addresses that nothing here reads.
ACCOUNT_PASSWORD_RESET_TOKEN_GENERATOR = "django.contrib.auth.tokens.PasswordResetTokenGenerator"  # noqa: S105 - a name
ACCOUNT_FORMS = {
    "login": "portal.forms.account.SignInForm",
    "reauthenticate": "portal.forms.account.ConfirmForm",
    "change_password": "portal.forms.account.ChangePasswordForm",
    "set_password": "portal.forms.account.SetPasswordForm",
    "reset_password": "portal.forms.account.ForgottenPasswordForm",
    "reset_password_from_key": "portal.forms.account.NewPasswordForm",
}
# password: of one e-mail address, from wherever; what one client may try is counted by axes. login_failed: second factors.
ACCOUNT_RATE_LIMITS = {"login": "100/m/ip", "password": "50/h/key", "login_failed": "30/m/ip,5/5m/key"}

MFA_ADAPTER = "portal.identity.adapters.MfaAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_ALLOW_UNVERIFIED_EMAIL = True
MFA_TOTP_TOLERANCE = 1  # steps of 30 s: clocks of phones differ
MFA_TOTP_ISSUER = "Sekisho"
MFA_FORMS = {
    "authenticate": "portal.forms.account.SecondFactorForm",
    "reauthenticate": "portal.forms.account.ConfirmCodeForm",
    "activate_totp": "portal.forms.account.ActivateAppForm",
    "add_webauthn": "portal.forms.account.AddPasskeyForm",
}

SOCIALACCOUNT_ADAPTER = "portal.identity.adapters.ProviderAdapter"
SOCIALACCOUNT_EMAIL_VERIFICATION = "none"
SOCIALACCOUNT_PROVIDERS: dict[str, Any] = {
    "openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": env.oidc_providers()},
}
SOCIALACCOUNT_OPENID_CONNECT_URL_PREFIX = ""

# Five failures from one address for one account; the count is in the cache, so that guessing fills no table.
AXES_HANDLER = "axes.handlers.cache.AxesCacheHandler"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # the page says when it ends, and then it does
AXES_USERNAME_CALLABLE = "portal.identity.lockouts.account_of"
AXES_CLIENT_IP_CALLABLE = "portal.identity.lockouts.address_of"
AXES_LOCKOUT_CALLABLE = "portal.views.sessions.locked_out"
AXES_VERBOSE = False

EMAIL = env.mail()
IS_MAIL_CONFIGURED = bool(EMAIL)
EMAIL_BACKEND = EMAIL.get("EMAIL_BACKEND", "django.core.mail.backends.dummy.EmailBackend")
EMAIL_HOST = EMAIL.get("EMAIL_HOST", "")
EMAIL_PORT = EMAIL.get("EMAIL_PORT") or 25
EMAIL_HOST_USER = EMAIL.get("EMAIL_HOST_USER") or ""
EMAIL_HOST_PASSWORD = EMAIL.get("EMAIL_HOST_PASSWORD") or ""
EMAIL_USE_TLS = EMAIL.get("EMAIL_USE_TLS", False)
EMAIL_USE_SSL = EMAIL.get("EMAIL_USE_SSL", False)
EMAIL_TIMEOUT = 5  # seconds
DEFAULT_FROM_EMAIL = env.text("SEKISHO_MAIL_FROM", "sekisho@localhost")
