"""The stand-ins that users' tests rely on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from palestra.policies.fake import LOGPROB, RecordingTrainer, ScriptedPolicy
from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.errors import UserError
from palestra.rl.types import Batch, Completion, Sampling


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> HFTokenizer:
    return HFTokenizer(tiny)


def ask(policy: ScriptedPolicy, ids: list[int], max_tokens: int = 100) -> Completion:
    sampling = Sampling(temperature=1.0, max_tokens=max_tokens, seed=5, stop_ids=())
    return asyncio.run(policy.generate(ids, sampling))


def test_a_reply_ends_with_the_end_of_turn(tokenizer: HFTokenizer) -> None:
    reply = ask(ScriptedPolicy(["hello"], tokenizer), [1])
    ids = (*tokenizer.encode("hello"), tokenizer.eos_id)
    expected = Completion(token_ids=ids, logprobs=(LOGPROB,) * len(ids), version=0, finish="stop")
    assert reply == expected


def test_a_reply_is_cut_at_the_limit(tokenizer: HFTokenizer) -> None:
    size = len(tokenizer.encode("hello")) + 1
    for limit in range(1, size + 2):
        reply = ask(ScriptedPolicy(["hello"], tokenizer), [1], limit)
        assert len(reply.token_ids) == len(reply.logprobs) == min(limit, size)
        assert reply.finish == ("stop" if limit >= size else "length")


def test_each_episode_gets_the_replies_from_the_first(tokenizer: HFTokenizer) -> None:
    policy = ScriptedPolicy(["a", "b"], tokenizer)
    one, other = [1, 2], [3]
    said = ""
    for _ in range(2):
        for history in (one, other):
            reply = ask(policy, history)
            said += tokenizer.decode(reply.token_ids[:-1])
            history += [*reply.token_ids, 4]
    assert said == "aabb"
    assert [reply.token_ids for reply in policy.returned] == [
        (*tokenizer.encode(text), tokenizer.eos_id) for text in "aabb"
    ]
    assert policy.asked[:2] == [(1, 2), (3,)]
    with pytest.raises(UserError, match="reply 3 of an episode but has 2"):
        ask(policy, one)


def test_a_callable_sees_the_context_and_the_sampling(tokenizer: HFTokenizer) -> None:
    policy = ScriptedPolicy(lambda text, sampling: f"{text}{sampling.seed}", tokenizer)
    reply = ask(policy, tokenizer.encode("ab"))
    assert tokenizer.decode(reply.token_ids[:-1]) == "ab5"


def test_the_trainer_writes_every_call_down(tmp_path: Path) -> None:
    trainer = RecordingTrainer({"x": 1.0})
    batch, folder = Batch(step=1, samples=()), str(tmp_path / "a" / "step-1")

    async def work() -> None:
        await trainer.load(folder)
        assert await trainer.learn(batch) == {"x": 1.0}
        await trainer.save(folder)
        assert await trainer.publish(1) == {"x": 1.0}

    asyncio.run(work())
    calls = [("load", folder), ("learn", batch), ("save", folder), ("publish", 1)]
    assert trainer.calls == calls
    assert trainer.batches == [batch]
    assert Path(folder).is_dir()
