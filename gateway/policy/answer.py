"""A whole answer, judged by its output rules before anything of it is delivered. Pure.

Wire format: vllm/entrypoints/openai/chat_completion/protocol.py, ChatMessage.
"""

from collections.abc import Callable
from typing import Any, Final

from gateway.policy.decisions import Decision
from gateway.policy.masks import Masks
from gateway.policy.ruleset import RuleSet
from gateway.policy.scanner import judge_text
from gateway.policy.stream_guard import ARGUMENTS, TEXTS

_TOKENS: Final = frozenset({"logprobs", "token_ids"})  # of a choice: they tell its text again


class AnswerGuard:
    """One answer. is_blocked: none of it may be delivered."""

    def __init__(self, rules: RuleSet, masks: Masks, pause: Callable[[], None] = lambda: None) -> None:
        self._rules = rules
        self._masks = masks
        self._pause = pause
        self._is_changed = False  # any text of the choice at hand
        self.is_blocked = False
        self.decisions: list[Decision] = []

    def take(self, answer: dict[str, Any]) -> None:
        """Leave in `answer` what may be delivered; of what is masked no token is told either."""
        for choice in answer["choices"]:
            message = choice.get("message")
            if not isinstance(message, dict):
                continue
            self._is_changed = False
            for name, surface in TEXTS.items():
                if isinstance(text := message.get(name), str):
                    message[name] = self._judged(text, surface)
            calls = message.get("tool_calls")
            functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
            for function in (*functions, message.get("function_call")):
                if isinstance(function, dict):
                    self._take_function(function)
            if self._is_changed:
                choice.update(dict.fromkeys(_TOKENS & choice.keys()))

    def _take_function(self, function: dict[str, Any]) -> None:
        if isinstance(arguments := function.get("arguments"), str):
            function["arguments"] = self._judged(arguments, ARGUMENTS)
        if isinstance(name := function.get("name"), str) and self._judged(name, ARGUMENTS) != name:
            self.is_blocked = True  # a name cannot be masked: nobody has a tool of that name

    def _judged(self, text: str, surface: str) -> str:
        matcher = self._rules.on(surface)
        if matcher is None or not text:
            return text
        judgement = judge_text(matcher, text, self._masks, surface=surface, pause=self._pause)
        self.decisions += judgement.decisions
        self.is_blocked = self.is_blocked or judgement.blocked is not None
        self._is_changed = self._is_changed or judgement.text != text
        return judgement.text
