"""Content policies on a call's way in: what is masked, flagged or blocked before anything is held or asked of a backend."""

import threading
import time
from dataclasses import replace
from typing import Final

import gevent
import structlog

from gateway.api.chat_request import Upstream
from gateway.call import Call, us_since
from gateway.config.bindings import policies_for
from gateway.endings import stopped
from gateway.exceptions import ClientLeft, ContentBlocked, Overloaded
from gateway.policy.judge import Complete, ask_judges
from gateway.policy.masks import Masks
from gateway.policy.patterns import PatternRefused
from gateway.policy.reading import texts
from gateway.policy.request import judge_request
from gateway.policy.rules import INPUT, Judge, Policy
from gateway.policy.ruleset import RuleSet, compiled, kept
from gateway.principal import Principal
from gateway.routing.road import Road
from gateway.server.turns import give_way

_compiling: Final = threading.Lock()
_log = structlog.get_logger("gateway")


def guarded(call: Call, principal: Principal, road: Road, upstream: Upstream, *, complete: Complete) -> Upstream:
    """The request as the policies of its platform, tenant, alias and key let it go on; without any, as it is.

    Their rules, as they are now, stay with the call to its end, as do its masks. complete: answers a judge's call, unguarded.
    Raises ContentBlocked; Overloaded where a policy that applies cannot be read.
    """
    policies = policies_for(road.platform, principal.tenant, road.alias, principal.key)
    if not policies:
        return upstream
    begun = time.perf_counter()
    try:
        return judged(call, principal, policies, upstream, complete=complete)
    finally:
        call.policy_us = us_since(begun)


def judged(
    call: Call, principal: Principal, policies: tuple[Policy, ...], upstream: Upstream, *, complete: Complete
) -> Upstream:
    """By these policies; see guarded()."""
    unreadable = [policy.name for policy in policies if not policy.is_readable]
    if unreadable:
        _log.error("policies_unreadable", policies=unreadable, request_id=call.request_id)
        raise Overloaded(retry_after_s=1)
    try:
        call.rules, call.masks = rules_of(policies), Masks()
    except PatternRefused as error:
        _log.error("policies_unusable", policies=[policy.name for policy in policies], reason=str(error))
        raise Overloaded(retry_after_s=1) from None
    judgement = judge_request(call.rules, upstream.fields, call.masks, pause=give_way)
    call.decisions += judgement.decisions
    if judgement.blocked is not None:
        raise ContentBlocked
    judges = [source for source in call.rules.whole if isinstance(source.rule, Judge) and source.rule.where & INPUT]
    if judges:
        said = texts(judgement.fields, pause=give_way)
        call.decisions += (verdicts := ask_judges(call, principal, judges, said, complete=complete))
        if call.is_over:
            raise ClientLeft if call.client_left else stopped()
        if any(decision.action == "block" for decision in verdicts):
            raise ContentBlocked
    return replace(upstream, fields=judgement.fields)


def rules_of(policies: tuple[Policy, ...]) -> RuleSet:
    """Compiled by a real thread, where they are not yet: for thousands of words that takes half a second."""
    if (rules := kept(policies)) is not None:
        return rules
    with _compiling:
        made: RuleSet = kept(policies) or gevent.get_hub().threadpool.apply(compiled, (policies,))
        return made
