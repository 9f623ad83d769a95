"""Sign-in and sign-out."""

from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpResponse

from accounts.models import User
from portal.access import public
from portal.forms.sessions import SignInForm
from portal.views.language import remember


class SignIn(LoginView):
    """Django's own: it changes the session key, goes only to a `next` of this host, and answers alike for every failure."""

    template_name = "registration/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: SignInForm) -> HttpResponse:  # type: ignore[override]  # our form is the one named above
        response = super().form_valid(form)
        user = form.get_user()
        if isinstance(user, User) and user.language:
            remember(response, user.language)
        return response


sign_in = public(methods=("GET", "HEAD", "POST"))(SignIn.as_view())
sign_out = public(methods=("POST",))(LogoutView.as_view())
