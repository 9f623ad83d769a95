"""What a scope lets a key do, in words."""

from typing import Final

from django import template
from django.utils.translation import gettext_lazy as _

from accounts import scopes

register = template.Library()

IN_WORDS: Final = {
    scopes.CHAT: _("chat with models"),
    scopes.MODELS: _("list the models it may call"),
    scopes.EMBEDDINGS: _("make embeddings"),
    scopes.COMPLETIONS: _("complete texts, by the older call"),
    scopes.RESPONSES: _("chat by the responses call"),
    scopes.USAGE: _("read its own usage"),
    scopes.USAGE_TENANT: _("read the usage of the whole tenant"),
}


@register.filter
def scope_in_words(scope: str) -> str:
    """One that has no words yet is said as it is."""
    return str(IN_WORDS.get(scope, scope))
