"""What tokens cost. Pure: prices are pico-units a token, costs nano-units, rounded up."""

from gateway.config.documents import Price


def cost_nano(price: Price | None, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
    """The cost of a call. cached_tokens are among the prompt_tokens, at their own price."""
    if price is None:
        return 0
    pico = (prompt_tokens - cached_tokens) * price.prompt + cached_tokens * price.cached + completion_tokens * price.completion
    return -(-pico // 1000)
