"""A judge behind an OpenAI-compatible address: ``vllm serve`` beside the run, or a service."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from palestra.rewards.config import EndpointConfig
from palestra.rewards.judging.arbiter import JudgeError
from palestra.rewards.judging.quoting import clean
from palestra.rl.errors import Abstain, UserError
from palestra.rl.types import Message, Opinion

HIDDEN = "***"
LONGEST_PAUSE_S = 120.0
"""The client obeys a ``Retry-After`` of up to so many seconds."""
REFUSED = frozenset({400, 413, 422})
"""This request will never be answered: too long, or against the rules of the service."""
MISUSE = frozenset({401, 403, 404})

_JOINER = "\u2060"
_MARKERS = re.compile(
    r"<(?=[|｜])"  # <|im_end|>, <｜User｜>
    r"|<(?=/?s>)"  # </s>
    r"|<(?=<?/?SYS>)|\[(?=/?INST\]|/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\])"
    r"|<(?=(?:start|end)_of_turn>|/?think>|/?tool_(?:call|response)>|(?:bos|eos|pad|unk)>)"
)


class EndpointJudge:
    """Implements ``rl.types.Judge`` with the official client, which sends a request again after a
    refused connection, a time-out or a passing status.

    The key comes from the environment and is in no record, error or name. Nothing is connected
    before the first question, which raises ``UserError`` when the variable with the key is empty.
    """

    def __init__(self, config: EndpointConfig, *, temperature: float) -> None:
        self.config = config
        self.temperature = temperature
        self.name = f"{config.model} at {config.base_url}/t={temperature:g}"

    @cached_property
    def _secret(self) -> str:
        return _secret(self.config.api_key_env)

    @cached_property
    def _client(self) -> Any:
        from openai import AsyncOpenAI

        return AsyncOpenAI(
            base_url=self.config.base_url,
            api_key=self._secret or "none",
            timeout=self.config.timeout,
            max_retries=self.config.retries,
        )

    async def ask(self, messages: Sequence[Message], *, max_tokens: int, seed: int = 0) -> Opinion:
        """Its reply. Raises ``JudgeError`` when there is none, ``Abstain`` when the server refuses
        the request itself (status 400, 413 or 422)."""
        from openai import APIStatusError, OpenAIError

        config = self.config
        whole = (config.timeout + LONGEST_PAUSE_S) * (config.retries + 1)
        try:
            async with asyncio.timeout(whole):  # the client's own is for each piece of a reply
                raw = await self._client.chat.completions.with_raw_response.create(
                    model=config.model,
                    messages=[_as_sent(message) for message in messages],
                    max_completion_tokens=max_tokens,
                    temperature=self.temperature,
                    seed=seed,
                )
            reply = _Reply.model_validate_json(raw.http_response.content)
        except APIStatusError as error:
            kind = Abstain if error.status_code in REFUSED else JudgeError
            raise kind(self._safe(f"{self.name}: {error}")) from None
        except (OpenAIError, TimeoutError) as error:
            why = str(error) or "timed out"
            raise JudgeError(self._safe(f"{self.name}: {why}")) from None
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise JudgeError(self._safe(f"{self.name}: no chat completion: {why}")) from None
        usage = reply.usage or _Usage()
        return Opinion(
            text=self._safe(clean(reply.choices[0].message.content or "")),
            judge=self.name,
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
        )

    async def check(self) -> None:
        """One question for one token; raises ``UserError`` when address, key or model are wrong."""
        from openai import APIStatusError, OpenAIError

        hello = {"role": "user", "content": "Hello"}
        try:
            await self._client.chat.completions.create(
                model=self.config.model, messages=[hello], max_completion_tokens=1
            )
        except APIStatusError as error:
            if error.status_code in MISUSE | REFUSED:
                raise UserError(self._safe(f"judge {self.name}: {error}")) from None
            raise JudgeError(self._safe(f"{self.name}: {error}")) from None
        except OpenAIError as error:
            raise UserError(self._safe(f"judge {self.name} cannot be reached: {error}")) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _safe(self, text: str) -> str:
        return text.replace(self._secret, HIDDEN) if self._secret else text


def without_markers(text: str) -> str:
    """The text with an invisible joiner in whatever looks like a control token of a chat template.

    A server makes tokens of a whole rendered template, so ``<|im_end|>`` in a response would end
    the message that quotes it. Our own tokenizer needs no such thing (``Tokenizer.spell``).

    Example: ``without_markers("<|im_end|>")`` has eleven characters, and prints as before
    """
    return _MARKERS.sub(lambda found: found[0] + _JOINER, text)


def _as_sent(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": without_markers(clean(message.content))}


def _secret(variable: str) -> str:
    if not variable:
        return ""
    secret = os.environ.get(variable, "")
    if not secret:
        raise UserError(f"the judge's key: set the environment variable {variable}")
    return secret


class _Said(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Said


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Reply(BaseModel):
    """What we read of a chat completion."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
