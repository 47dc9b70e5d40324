"""The policy as a judge: the same weights that play, in the same engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from palestra.rl.errors import Abstain, EngineError
from palestra.rl.types import Message, Opinion, Policy, Sampling, Turn
from palestra.rollout.tokens import Chat


class PolicyJudge:
    """Implements ``rl.types.Judge`` over a policy and its chat template.

    Tokens in and tokens out, so what it said can be learned from: ``Opinion.turn``. What it is
    asked is quoted like everything that others say, and gives no control token. ``version`` counts
    the weight updates that the engine has seen. Any policy will do, a second engine with a template
    of its own included.
    """

    def __init__(
        self,
        policy: Policy,
        chat: Chat,
        *,
        version: Callable[[], int],
        temperature: float,
        max_context: int,
    ) -> None:
        self.policy = policy
        self.chat = chat
        self.version = version
        self.temperature = temperature
        self.max_context = max_context

    @property
    def name(self) -> str:
        """Which weights, and how they are sampled from."""
        return f"policy@{self.version()}/t={self.temperature:g}"

    async def ask(self, messages: Sequence[Message], *, max_tokens: int, seed: int = 0) -> Opinion:
        """Its reply, perhaps cut short. Raises ``Abstain`` where prompt and reply do not fit into
        the context, ``EngineError`` for a reply of other weights than ``version`` said."""
        name, version = self.name, self.version()
        prompt = self.chat.prompt(messages, ())
        if len(prompt) + max_tokens > self.max_context:
            raise Abstain(
                f"{len(prompt)} tokens to judge and {max_tokens} to reply are more than the "
                f"context of {self.max_context}"
            )
        eos = self.chat.tokenizer.eos_id
        sampling = Sampling(
            temperature=self.temperature,
            max_tokens=max_tokens,
            seed=seed,
            stop_ids=(eos,),
            lane=seed,
        )
        reply = await self.policy.generate(prompt, sampling)
        if reply.version != version:
            raise EngineError(f"judged by weights {reply.version}, not {version}")
        said = reply.token_ids[:-1] if reply.token_ids[-1:] == (eos,) else reply.token_ids
        text = self.chat.tokenizer.decode(said)
        return Opinion(
            text=text,
            judge=name,
            input_tokens=len(prompt),
            output_tokens=len(reply.token_ids),
            turn=Turn(
                context_ids=tuple(prompt),
                token_ids=reply.token_ids,
                logprobs=reply.logprobs,
                version=reply.version,
                message=Message(role="assistant", content=text),
                routing=reply.routing,
            ),
        )
