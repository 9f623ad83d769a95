"""The draft of a policy, as blocks or as text: the state of the editor is all in its form, and only `keep` writes."""

from dataclasses import dataclass, field
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from accounts.models import Tenant
from accounts.roles import Action
from gateway.config import policies
from gateway.config.policy_rules import checked
from gateway.models import ContentPolicy
from gateway.policy.rules import Policy, RulesRefused, parse_rules
from gateway.policy.trial import Trial, try_text
from portal import editing, wording
from portal.access import by
from portal.differences import differences
from portal.forms.blocks import BLOCKS_MAX, Block, blocks_of, blocks_sent, each_written, place, rearranged, written
from portal.forms.policies import RulesForm, TrialForm, as_written
from portal.holders import held, url_of
from portal.views.policies import READ_AND_POST, draft_of, page_of, pieces, policy_of

FIRST_RULES: Final[list[dict[str, Any]]] = [{"kind": "keywords", "where": ["input"], "action": "block"}]


@dataclass(slots=True)
class Editor:
    """form: as text; None: as blocks. rules: what the form says, once it is right. goes_on: to add, as no block is left."""

    blocks: list[Block] = field(default_factory=list)
    form: RulesForm | None = None
    problems: list[str] = field(default_factory=list)
    rules: list[Any] | None = None
    goes_on: bool = False


@held(Action.MANAGE_POLICIES, methods=READ_AND_POST)
def edit(request: HttpRequest, holder: Tenant | None, name: str) -> HttpResponse:
    with editing.alone(request, f"policy {holder.slug if holder else ''}/{name}"):
        return _edit(request, holder, name)


def _edit(request: HttpRequest, holder: Tenant | None, name: str) -> HttpResponse:
    policy = policy_of(holder, name)
    act = request.POST.get("do", "keep") if request.method == "POST" else ""
    draft = draft_of(policy)
    begun = draft or policy.published
    editor = _sent(request, act) if act else _begun(begun.rules if begun else FIRST_RULES, request.GET.get("view", ""))
    entered = editor.rules if act == "keep" else None
    edit = editing.of_text(request, f"policy {policy.label}", holder, begun.rules if begun else [], entered, _compared)
    if act == "keep" and editor.rules is not None and not edit.is_overtaken:
        policies.save_draft(policy, editor.rules, **by(request))
        messages.success(request, _("The draft is kept. It judges no call before it is published."))
        return redirect(url_of(holder, "policy_draft", name) + ("?view=text" if editor.form else ""))
    text = request.POST.get("text", "")
    kept = {"text": text, "surface": request.POST["surface"]} if "surface" in request.POST else {}
    bench = TrialForm(request.POST if act == "try" else None, initial=kept)
    trial = _tried(policy, editor.rules, bench) if act == "try" and bench.is_valid() and editor.rules is not None else None
    context = page_of(
        request,
        policy,
        draft=draft,
        edit=edit,
        editor=editor,
        act=act,
        kinds=wording.KINDS.items(),
        is_full=len(editor.blocks) >= BLOCKS_MAX,
        blocks_max=BLOCKS_MAX,
        bench=bench,
        trial=trial,
        pieces=pieces(text, trial.matches) if trial else (),
        is_wrong=bool(act in ("keep", "try", "blocks") and editor.rules is None),
        lines=_changes(policy, draft.rules) if draft else None,
    )
    return render(request, "portal/policies/draft.html", context)


def _compared(held: list[Any], entered: list[Any]) -> list[Any] | None:
    return differences(each_written(held), each_written(entered))


def _begun(rules: list[Any], view: str) -> Editor:
    if view == "text" or len(rules) > BLOCKS_MAX:
        return Editor(form=RulesForm(initial={"rules": as_written(None if rules is FIRST_RULES else rules)}))
    return Editor(blocks=blocks_of(rules))


def _sent(request: HttpRequest, act: str) -> Editor:
    return _sent_text(request, act) if "rules" in request.POST else _sent_blocks(request, act)


def _sent_text(request: HttpRequest, act: str) -> Editor:
    form = RulesForm(request.POST)
    is_valid = form.is_valid()
    if act == "blocks" and isinstance(form.parsed, list) and len(form.parsed) <= BLOCKS_MAX:
        return Editor(blocks=blocks_of(form.parsed), rules=form.parsed)
    return Editor(form=form, rules=form.parsed if is_valid else None)


def _sent_blocks(request: HttpRequest, act: str) -> Editor:
    blocks = blocks_sent(request.POST)
    rules = [block.rule() for block in blocks]
    if act == "text":
        return Editor(form=RulesForm(initial={"rules": written(rules)}))
    if act not in ("keep", "try"):
        act = f"add-{request.POST.get('kind', '')}" if act == "add" else act
        blocks = rearranged(blocks, act)
        return Editor(blocks=blocks, goes_on=not blocks)
    try:
        return Editor(blocks=blocks, rules=checked(rules))
    except RulesRefused as refused:
        return Editor(blocks=blocks, problems=place(blocks, refused.problems))


def _tried(policy: ContentPolicy, rules: list[Any], bench: TrialForm) -> Trial:
    judged = Policy(policy.name, 0, parse_rules(rules, is_published=True))
    return try_text([judged], bench.cleaned_data["text"], bench.cleaned_data["surface"])


def _changes(policy: ContentPolicy, rules: list[Any]) -> list[Any] | None:
    """What publishing the draft would change. None: it is too long to tell."""
    return differences(each_written(policy.published.rules if policy.published else ()), each_written(rules))
