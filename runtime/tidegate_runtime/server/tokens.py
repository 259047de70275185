"""The service that says what tokens a text is, and what text tokens are."""

from __future__ import annotations

import asyncio

from tidegate.protocol.tokenize import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from tidegate_runtime.artifact.load import LoadedModel
from tidegate_runtime.chat.prompts import ChatPrompts
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.prompt import text_tokens


class Tokens:
    """Tokenizes as the model's own requests do; `prompts` is None for a model that takes no chats.

    What is longer than the context is counted all the same: whoever counts wants to know that.
    """

    def __init__(self, loaded: LoadedModel, prompts: ChatPrompts | None = None) -> None:
        self._loaded = loaded
        self._prompts = prompts

    async def tokenize(self, request: TokenizeRequest) -> TokenizeResponse:
        """Raises RequestRefused for messages that the model does not take."""
        return await asyncio.to_thread(self._tokenize, request)

    async def detokenize(self, request: DetokenizeRequest) -> DetokenizeResponse:
        """Raises RequestRefused for a token that is not in the vocabulary."""
        return await asyncio.to_thread(self._detokenize, request)

    def _tokenize(self, request: TokenizeRequest) -> TokenizeResponse:
        tokens = self._prompt(request) if request.messages is None else self._chat(request)
        spelled = self._loaded.tokenizer.convert_ids_to_tokens
        return TokenizeResponse(
            count=len(tokens),
            max_model_len=self._loaded.context_tokens,
            tokens=tokens,
            token_strs=[str(text) for text in spelled(tokens)]
            if request.return_token_strs
            else None,
        )

    def _prompt(self, request: TokenizeRequest) -> list[int]:
        special = request.add_special_tokens is not False
        found = self._loaded.tokenizer(request.prompt, add_special_tokens=special)["input_ids"]
        return [int(token) for token in found]

    def _chat(self, request: TokenizeRequest) -> list[int]:
        if self._prompts is None:
            raise RequestRefused(
                "messages: this model takes no chats; send prompt.",
                param="messages",
                code="no_chat_template",
            )
        is_answered = request.add_generation_prompt is not False
        return self._prompts.tokens(request.chat, add_generation_prompt=is_answered)

    def _detokenize(self, request: DetokenizeRequest) -> DetokenizeResponse:
        loaded = self._loaded
        tokens = text_tokens(loaded.tokenizer, request.tokens, loaded.vocabulary_size, "tokens")
        text = loaded.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        return DetokenizeResponse(prompt=str(text))
