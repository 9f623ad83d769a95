"""allauth's adapters: where sign-in is decided or said our way. Nobody signs up: an account is made by who invites."""

import time
from typing import Any, Final

from allauth.account import app_settings
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.core.internal import ratelimit
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts import audit, inviting
from accounts.models import User
from gateway.config import encryption
from portal.access import acting
from portal.identity import trail
from portal.views.language import remember

REFUSED: Final = gettext_lazy(
    "This e-mail address and password do not open an account. Check both and try again; "
    "if you forgot the password, follow the link below."
)
TOO_MANY: Final = gettext_lazy("Too many attempts. Wait some minutes, then try again.")
WRONG_CODE: Final = gettext_lazy("This code is not right. Codes of an app change every 30 seconds: enter the one it shows now.")
# What allauth would say after an act, by the name of its template; of what is not here it says nothing.
SAID: Final[dict[str, Promise]] = {
    "account/messages/password_changed.txt": gettext_lazy("The password is changed."),
    "account/messages/password_set.txt": gettext_lazy("The password is set."),
    "mfa/messages/totp_activated.txt": gettext_lazy("The authenticator app is set up."),
    "mfa/messages/totp_deactivated.txt": gettext_lazy("The authenticator app is taken off."),
    "mfa/messages/webauthn_added.txt": gettext_lazy("The passkey is added."),
    "mfa/messages/webauthn_removed.txt": gettext_lazy("The passkey is removed."),
}


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    error_messages = DefaultAccountAdapter.error_messages | {
        "email_password_mismatch": REFUSED,
        "too_many_login_attempts": TOO_MANY,
        "rate_limited": TOO_MANY,
        "incorrect_password": gettext_lazy("This is not your password. Try again."),
        "enter_current_password": gettext_lazy("This is not your password. Try again."),
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def is_safe_url(self, url: str) -> bool:
        """Only this host is led to after sign-in, whatever else the installation answers to."""
        request = context.request
        return url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """One account may be tried 50 times an hour from everywhere together; axes counts what one client tries."""
        self._login_failed_rl_usage = ratelimit.consume(
            request, app="allauth.account", action="password", key=credentials["email"].lower()
        )
        if not self._login_failed_rl_usage:
            raise self.validation_error("too_many_login_attempts")

    def authenticate(self, request: HttpRequest, **credentials: Any) -> User | None:
        """A closed account answers as a wrong password does: nobody learns which addresses exist."""
        user: User | None = super().authenticate(request, **credentials)
        if user is not None and user.is_active:
            return user
        trail.password_refused(request, str(credentials.get("email") or ""))
        return None

    def reauthenticate(self, user: User, password: str) -> bool:
        found = self.authenticate(context.request, email=user.email, password=password)
        return found is not None and found.pk == user.pk

    def is_reauthentication_required(self, app: str) -> bool:
        """Who signed in minutes ago is not asked again, so that a required second factor is set up in one go."""
        request = context.request
        records = get_authentication_records(request, request.user)
        is_fresh = any(time.time() - record["at"] < app_settings.REAUTHENTICATION_TIMEOUT for record in records)
        return not is_fresh and bool(super().is_reauthentication_required(app=app))

    def post_login(self, request: HttpRequest, user: User, **login: Any) -> HttpResponse:
        response: HttpResponse = super().post_login(request, user, **login)
        if user.language:
            remember(response, user.language)
        return response

    def add_message(
        self, request: HttpRequest, level: int, message_template: str | None = None, *args: Any, **kwargs: Any
    ) -> None:
        text = kwargs.get("message") or SAID.get(message_template or "")
        if text:
            messages.add_message(request, level, str(text))


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth ships no types
    error_messages = DefaultMFAAdapter.error_messages | {"incorrect_code": WRONG_CODE}

    def generate_authenticator_name(self, user: User, type: Any) -> str:  # noqa: A002 - allauth calls it by name
        number = Authenticator.objects.filter(user=user, type=type).count() + 1
        return _("Passkey %(number)s") % {"number": number}

    def encrypt(self, text: str) -> str:
        return encryption.encrypt(text)

    def decrypt(self, encrypted_text: str) -> str:
        return encryption.decrypt(encrypted_text)


class ProviderAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """A provider opens an account that is there, or one that an invitation waits for; the address decides, once.

    From then on the provider's own id of the person does: an address that changes hands there opens nothing here.
    """

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return False

    def is_email_verified(self, provider: Any, email: str) -> bool:
        """Some providers say nothing of addresses being proven; the installation may say it of them."""
        return bool(provider.app.settings.get("vouches_for_addresses"))

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        if sociallogin.is_existing:
            return
        addresses = [row.email.lower() for row in sociallogin.email_addresses if row.verified]
        if not addresses:
            raise ImmediateHttpResponse(render(request, "account/signup_closed.html", {"is_unproven": True}, status=403))
        with transaction.atomic():
            user = User.objects.filter(email__in=addresses).first() or self._invited(request, sociallogin, addresses)
            if user is None:
                page = render(request, "account/signup_closed.html", {"email": addresses[0]}, status=403)
                raise ImmediateHttpResponse(page)
            sociallogin.connect(request, user)
            facts = {"provider": sociallogin.account.provider}
            who = acting(request, user)
            audit.record(verb="person.provider_connected", target=f"person {user}", after=facts, **who)

    def _invited(self, request: HttpRequest, sociallogin: SocialLogin, addresses: list[str]) -> User | None:
        name = str(sociallogin.account.extra_data.get("userinfo", {}).get("name") or "")[:100]
        for address in addresses:
            user = inviting.accept_by_address(address, name=name, **acting(request, None))
            if user is not None:
                return user
        return None
