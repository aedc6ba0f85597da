"""Where providers answer in OpenAI's language, by the prefix that litellm marks their models with.

Each address stands on the provider's own page, which `source` names.
"""

from __future__ import annotations

from typing import NamedTuple

from reward_hub.errors import UnsupportedError


class Provider(NamedTuple):
    api_base: str
    source: str


PROVIDERS = {
    "anthropic": Provider(
        "https://api.anthropic.com/v1/",
        "https://platform.claude.com/docs/en/cli-sdks-libraries/libraries/openai-sdk.md",
    ),
    "deepseek": Provider("https://api.deepseek.com/v1", "https://api-docs.deepseek.com/"),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai/", "https://ai.google.dev/gemini-api/docs/openai"
    ),
    "groq": Provider("https://api.groq.com/openai/v1", "https://console.groq.com/docs/openai"),
    "mistral": Provider("https://api.mistral.ai/v1", "https://docs.mistral.ai/api/"),
    "openrouter": Provider("https://openrouter.ai/api/v1", "https://openrouter.ai/docs/quickstart"),
    "together_ai": Provider(
        "https://api.together.ai/v1", "https://docs.together.ai/docs/inference/openai-compatibility"
    ),
}


def require_openai_model(model: str) -> None:
    """Where no address is given, the model is one of OpenAI's, and nobody else's key is sent there.

    Raises:
        UnsupportedError: its name has a prefix, as OpenAI's have not; names the provider's address where it is known.
    """
    prefix, slash, name = model.partition("/")
    if not slash:
        return
    provider = PROVIDERS.get(prefix)
    place = "the address of its OpenAI-compatible endpoint"
    if provider is not None:
        place = f"{provider.api_base!r} ({provider.source}), and the model as {name!r}"
    raise UnsupportedError(
        f"{model!r} is not a model of OpenAI, which is asked where no address is given. Give api_base= (base_url= in "
        f"create_pointwise_judge), {place}."
    )
