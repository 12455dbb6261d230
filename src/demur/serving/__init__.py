"""`demur serve`: an OpenAI-compatible server that opens every conversation with a trained prompt.

It stands in front of a vLLM server of the unchanged model. `conversation` says what of a request
is passed on and how it opens, `probing` asks the server how it writes a conversation, `upstream`
reaches it, `relay` and `app` answer users, and `server` runs it all. The last five need the
packages of the extra, so this module imports none of them.
"""

from demur.serving.conversation import Manner, RequestRefused, opened_request
from demur.serving.prompts import ServedPrompt, served_prompts
from demur.serving.settings import ServeSettings

__all__ = [
    "Manner",
    "RequestRefused",
    "ServeSettings",
    "ServedPrompt",
    "opened_request",
    "served_prompts",
]
