"""The closed list of what an API key may be allowed to do. Pure."""

from typing import Final

CHAT: Final = "chat"
MODELS: Final = "models"
EMBEDDINGS: Final = "embeddings"
COMPLETIONS: Final = "completions"
RESPONSES: Final = "responses"
USAGE: Final = "usage"
USAGE_TENANT: Final = "usage:tenant"

SCOPES: Final = (CHAT, MODELS, EMBEDDINGS, COMPLETIONS, RESPONSES, USAGE, USAGE_TENANT)
