"""A real DeepSpeed engine on a two-layer model against plain PyTorch."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from palestra.policies.config import LearnerConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.errors import CheckpointError, UserError
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.objectives.tokens import Tokens
from palestra.rl.types import Batch, Sample

OBJECTIVE = PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.05))
PTX = 0.3
Tensors: TypeAlias = dict[str, torch.Tensor]
MakeLearner: TypeAlias = Callable[..., DeepSpeedLearner]
GradientsOf: TypeAlias = Callable[[DeepSpeedLearner, Batch], tuple[Tensors, dict[str, float]]]
stages = pytest.mark.parametrize("zero_stage", [1, 2])


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Takes back what the learner puts into the environment of its process."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]


@pytest.fixture
def make_learner(tiny: Path) -> MakeLearner:
    def make(*, ptx_coef: float = PTX, **config: Any) -> DeepSpeedLearner:
        known = {"lr": 1e-3, "threads": 1, "row_tokens": 64, "micro_batch_tokens": 256}
        settings = LearnerConfig(**known | config)
        return DeepSpeedLearner(str(tiny), settings, OBJECTIVE, ptx_coef=ptx_coef)

    return make


def policy_sample(rng: random.Random, prompt: tuple[int, ...] = ()) -> Sample:
    """A prompt and a reply; engine log-probabilities near those of the random model (-6)."""
    prompt = prompt or (rng.randrange(400), rng.randrange(400))
    size = len(prompt) + rng.randrange(2, 28)
    reply = size - len(prompt)
    mask = [False] * len(prompt) + [rng.random() < 0.7 for _ in range(reply)]
    advantage = rng.uniform(-1, 1)
    return Sample(
        token_ids=(*prompt, *(rng.randrange(400) for _ in range(reply))),
        loss_mask=tuple(mask),
        logprobs=tuple(rng.uniform(-7, -5) if m else 0.0 for m in mask),
        advantages=tuple(advantage if m else 0.0 for m in mask),
        ptx=(0.0,) * size,
        temperature=rng.choice([1.0, 0.7]),
    )


def ptx_sample(rng: random.Random) -> Sample:
    size = rng.randrange(4, 30)
    return Sample(
        token_ids=tuple(rng.randrange(400) for _ in range(size)),
        loss_mask=(False,) * size,
        logprobs=(0.0,) * size,
        advantages=(0.0,) * size,
        ptx=(0.0, *(rng.choice([0.0, 1.0]) for _ in range(size - 1))),
    )


def batch(seed: int = 0, *, policy: int = 6, ptx: int = 3) -> Batch:
    """Half of the policy samples answer one prompt, as those of a group do."""
    rng = random.Random(seed)
    prompt = tuple(rng.randrange(400) for _ in range(9))
    samples = [policy_sample(rng, prompt if n % 2 else ()) for n in range(policy)]
    samples += [ptx_sample(rng) for _ in range(ptx)]
    return Batch(step=1, samples=tuple(samples))


def weights(learner: DeepSpeedLearner) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in learner.named_weights()}


def same(a: Tensors, b: Tensors) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def plain_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)


def plain_logprobs(model: Any, sample: Sample) -> torch.Tensor:
    """Of every token but the first, by an ordinary forward of this sample alone."""
    ids = torch.tensor([sample.token_ids])
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1] / sample.temperature
    return torch.log_softmax(logits, -1).gather(-1, ids[0, 1:, None])[:, 0]


def plain_loss(model: Any, what: Batch) -> torch.Tensor:
    policy, supervised = torch.zeros(()), torch.zeros(())
    tokens = sum(sum(s.loss_mask) for s in what.samples)
    weight = sum(sum(s.ptx) for s in what.samples)
    for s in what.samples:
        logprobs = plain_logprobs(model, s)
        chosen = torch.tensor(s.loss_mask[1:])
        engine = torch.tensor(s.logprobs[1:])[chosen]
        loss, _ = OBJECTIVE(
            Tokens(
                logprobs=logprobs[chosen],
                engine=engine,
                old=engine,
                advantages=torch.tensor(s.advantages[1:])[chosen],
                sample=torch.zeros(len(engine), dtype=torch.long),
            )
        )
        policy = policy + loss.sum()
        supervised = supervised - (torch.tensor(s.ptx[1:]) * logprobs).sum()
    return policy / tokens + PTX * supervised / weight


@pytest.fixture(scope="module")
def expected(tiny: Path) -> Tensors:
    """The gradient of the whole batch, one sample after the other, without packing."""
    model = plain_model(tiny)
    plain_loss(model, batch()).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@stages
@pytest.mark.parametrize(
    ("row_tokens", "micro_batch_tokens"), [(16, 16), (64, 64), (64, 256), (256, 4096)]
)
def test_the_gradient_does_not_depend_on_packing(
    make_learner: MakeLearner,
    gradients_of: GradientsOf,
    expected: Tensors,
    zero_stage: int,
    row_tokens: int,
    micro_batch_tokens: int,
) -> None:
    learner = make_learner(
        zero_stage=zero_stage, row_tokens=row_tokens, micro_batch_tokens=micro_batch_tokens
    )
    found, metrics = gradients_of(learner, batch())
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-4)
    norm = torch.cat([g.flatten() for g in expected.values()]).norm().item()
    assert metrics["actor/grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_weights_and_metrics_after_steps_do_not_depend_on_packing(
    make_learner: MakeLearner,
) -> None:
    ends, reports = [], []
    for row_tokens, micro_batch_tokens in ((16, 16), (256, 4096)):
        learner = make_learner(
            lr=1e-4, row_tokens=row_tokens, micro_batch_tokens=micro_batch_tokens
        )
        reports.append([learner.learn(batch(seed)) for seed in range(3)])
        ends.append(weights(learner))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], atol=1e-6, rtol=1e-5)
    for one, other in zip(*reports, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_a_step_is_adamw_on_the_clipped_gradient(make_learner: MakeLearner, tiny: Path) -> None:
    learner = make_learner(grad_clip=0.01, weight_decay=0.1, betas=(0.8, 0.9))
    model = plain_model(tiny)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.1
    )
    for seed in range(3):
        learner.learn(batch(seed))
        optimizer.zero_grad()
        plain_loss(model, batch(seed)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
    found = weights(learner)
    for name, parameter in model.named_parameters():
        # AdamW divides by the gradient's own size: where that is ~0 a rounding error is a step.
        close = torch.isclose(found[name], parameter, atol=2e-5, rtol=1e-4)
        assert close.float().mean() > 0.99, name


def test_packed_log_probabilities_are_those_of_a_plain_forward(
    make_learner: MakeLearner, tiny: Path
) -> None:
    learner, model = make_learner(logprob_chunk=7), plain_model(tiny)
    samples = batch(ptx=0).samples
    (micro,) = learner._pack(samples)
    with torch.no_grad():
        packed, _ = learner.engine(micro)
        plain = [plain_logprobs(model, s) for s in samples]
    wanted = [
        value
        for sample, own in zip(samples, plain, strict=True)
        for value, kept in zip(own.tolist(), sample.loss_mask[1:], strict=True)
        if kept
    ]
    assert sorted(packed.tolist()) == pytest.approx(sorted(wanted), abs=1e-5)
    for sample, own in zip(samples, plain, strict=True):
        (found,) = learner.logprobs([sample.token_ids], temperature=sample.temperature)
        assert found == pytest.approx([0.0, *own.tolist()], abs=1e-5)


def test_log_probabilities_of_several_and_of_short_sequences(make_learner: MakeLearner) -> None:
    learner = make_learner()
    several = learner.logprobs([[1, 2, 3], [4], [], [1, 2, 3]])
    assert several[0] == several[3] and len(several[0]) == 3
    assert several[1:3] == [[0.0], []]
    with_less = learner.logprobs([[1, 2, 3]], temperature=0.5)
    assert with_less != several[:1]


@stages
def test_without_a_weight_ptx_samples_leave_no_trace(
    make_learner: MakeLearner, zero_stage: int
) -> None:
    ends = []
    for ptx in (0, 3):
        learner = make_learner(ptx_coef=0.0, zero_stage=zero_stage)
        for seed in range(2):
            samples = batch(seed).samples[: 6 + ptx]
            learner.learn(Batch(step=1, samples=samples))
        ends.append(weights(learner))
    assert same(*ends)
    weighted = make_learner(zero_stage=zero_stage)
    for seed in range(2):
        weighted.learn(batch(seed))
    assert not same(ends[0], weights(weighted))


def test_before_clipping_the_policy_gradient_is_the_same_whatever_ptx_rides_along(
    make_learner: MakeLearner, gradients_of: GradientsOf
) -> None:
    learner = make_learner(lr=1e-30, grad_clip=0.01)  # which moves no weight

    def gradients(*samples: Sample) -> Tensors:
        return gradients_of(learner, Batch(step=1, samples=samples))[0]

    policy = batch(ptx=0).samples
    alone = gradients(*policy)
    for count in (1, 7):
        riders = batch(count, policy=0, ptx=count).samples
        both, supervised = gradients(*policy, *riders), gradients(*riders)
        for name, gradient in alone.items():
            torch.testing.assert_close(
                both[name] - supervised[name], gradient, atol=1e-6, rtol=1e-4
            )


def test_supervised_only(make_learner: MakeLearner) -> None:
    learner = make_learner(ptx_coef=1.0)
    what = batch(policy=0, ptx=4)
    losses = [learner.learn(what)["ptx/nll"] for _ in range(15)]
    assert losses[-1] < losses[0] - 0.1
    assert "actor/pg_loss" not in learner.learn(what)


@stages
def test_a_batch_without_signal_changes_nothing(make_learner: MakeLearner, zero_stage: int) -> None:
    learner = make_learner(zero_stage=zero_stage)
    untaught = Sample(
        token_ids=(1, 2),
        loss_mask=(False,) * 2,
        logprobs=(0.0,) * 2,
        advantages=(0.0,) * 2,
        ptx=(0.0,) * 2,
    )
    for samples in ((), (untaught,)):
        learner.learn(batch())  # momentum: an optimizer step alone would move the weights
        before = weights(learner)
        metrics = learner.learn(Batch(step=2, samples=samples))
        assert same(before, weights(learner))
        assert metrics["actor/grad_norm"] == 0.0
    assert learner.steps == 4
    assert learner.learn(batch())["actor/grad_norm"] > 0


def test_the_learning_rate_warms_up_and_decays(make_learner: MakeLearner) -> None:
    learner = make_learner(lr=1.0e-3, warmup_steps=2, decay_steps=4)
    rates = [learner.learn(batch())["actor/lr"] for _ in range(6)]
    assert rates == pytest.approx([0.5e-3, 0.75e-3, 0.5e-3, 0.25e-3, 0.1e-3, 0.1e-3])


@stages
def test_a_checkpoint_restores_weights_and_optimizer(
    make_learner: MakeLearner, tiny: Path, tmp_path: Path, zero_stage: int
) -> None:
    settings = {"zero_stage": zero_stage, "warmup_steps": 10}
    learner = make_learner(**settings)
    for seed in range(2):
        learner.learn(batch(seed))
    learner.save(str(tmp_path / "step-2"))
    saved = weights(learner)
    metrics = learner.learn(batch(2))
    after = weights(learner)
    assert not same(saved, after)

    for restored in (make_learner(**settings), learner):
        restored.load(str(tmp_path / "step-2"))
        assert same(weights(restored), saved)
        assert restored.steps == 2
        assert restored.learn(batch(2)) == metrics
        assert same(weights(restored), after)

    exported = plain_model(tmp_path / "step-2")
    assert same(dict(exported.state_dict()), saved)
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "step-2" / name).read_bytes() == (tiny / name).read_bytes()
    assert HFTokenizer(tmp_path / "step-2").eos_id == HFTokenizer(tiny).eos_id
    assert [p.name for p in tmp_path.iterdir()] == ["step-2"]


def test_saving_again_replaces_the_folder(make_learner: MakeLearner, tmp_path: Path) -> None:
    learner = make_learner()
    (tmp_path / "step-1.partial").mkdir()
    (tmp_path / "step-1.partial" / "left over").touch()
    learner.save(str(tmp_path / "step-1"))
    (tmp_path / "step-1" / "old").touch()
    learner.learn(batch())
    learner.save(str(tmp_path / "step-1"))
    assert not {"old", "left over"} & {p.name for p in (tmp_path / "step-1").iterdir()}
    other = make_learner()
    other.load(str(tmp_path / "step-1"))
    assert same(weights(other), weights(learner))


# What hits the limit: the configuration, the weights, the optimizer's state.
@pytest.mark.parametrize("room", [200, 60_000, 200_000])
def test_a_full_disk_keeps_the_previous_checkpoint(
    make_learner: MakeLearner, tmp_path: Path, room: int
) -> None:
    learner = make_learner()
    learner.learn(batch())
    learner.save(str(tmp_path / "step-1"))
    good = weights(learner)
    learner.learn(batch(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        for name in ("step-1", "step-2"):
            with pytest.raises(CheckpointError, match=f"cannot write .*{name}") as raised:
                learner.save(str(tmp_path / name))
            assert "\n" not in str(raised.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"], "nothing half-written stays"
    learner.load(str(tmp_path / "step-1"))
    assert same(weights(learner), good)
    learner.learn(batch(1))
    learner.save(str(tmp_path / "step-2"))


def test_a_folder_that_cannot_be_written(make_learner: MakeLearner, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write .*: Not a directory"):
        make_learner().save(str(tmp_path / "file" / "step-1"))


def _missing(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def _only_the_export(folder: Path) -> None:
    _missing(folder / "native")


def _no_count(folder: Path) -> None:
    (folder / "learner.json").unlink()


def _cut_short(folder: Path) -> None:
    for path in (folder / "native").rglob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("spoil", [_missing, _only_the_export, _no_count, _cut_short])
def test_a_spoilt_checkpoint_is_one_line(
    make_learner: MakeLearner, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    learner = make_learner()
    learner.learn(batch())
    learner.save(str(tmp_path / "step-1"))
    spoil(tmp_path / "step-1")
    with pytest.raises(CheckpointError, match="step-1") as raised:
        learner.load(str(tmp_path / "step-1"))
    assert "\n" not in str(raised.value)


def test_on_cpu_nothing_can_be_offloaded(make_learner: MakeLearner) -> None:
    learner = make_learner()
    before = weights(learner)
    assert not learner.offload("states") and not learner.offload("weights")
    learner.reload()
    assert same(before, weights(learner))


def test_ranks_of_a_launcher_are_refused(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="unset WORLD_SIZE"):
        make_learner()
