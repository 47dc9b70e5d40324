"""The learning side: a DeepSpeed engine over a Hugging Face causal LM.

The learner adds per-token loss components, each divided by its own count over the whole update, and
never learns which algorithm they come from. The same code runs on CPU and CUDA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from palestra.policies import (
    checkpoints,
    components,
    counters,
    guards,
    leaks,
    optimizers,
    process_group,
    qat,
)
from palestra.policies.components import Counts, PolicyLoss, Scored
from palestra.policies.config import LearnerConfig
from palestra.policies.lora import Adapter, WithoutAdapter, merged
from palestra.policies.module import load_policy
from palestra.policies.packing import MicroBatch, micro_batches
from palestra.policies.process_group import ALONE, Ranks
from palestra.policies.qk_clip import QkClip
from palestra.policies.reference import Reference
from palestra.policies.routers import Routers
from palestra.policies.schedules import learning_rate
from palestra.policies.shards import shards
from palestra.rl.types import Batch, Sample


class DeepSpeedLearner:
    """Implements ``rl.types.Learner`` for one rank.

    ``folder`` is a Hugging Face model folder, and the frozen reference where the loss or the
    rewards hold a KL penalty; ``objective`` is the policy loss, None where only supervised samples
    are learned; ``ptx_coef`` weighs the supervised loss against it; ``adapter`` is the folder of
    one that is trained in place of the model's own weights. All ranks are called alike, with the
    same batch: each learns from its share of the rows.
    """

    def __init__(
        self,
        folder: str,
        config: LearnerConfig,
        objective: PolicyLoss | None,
        *,
        ptx_coef: float = 1.0,
        ranks: Ranks = ALONE,
        adapter: str | None = None,
    ) -> None:
        self.folder = folder
        self.adapter_folder = adapter
        self.config = config
        self.objective = objective
        self.ptx_coef = ptx_coef
        self.steps = 0
        self._offloaded: set[str] = set()
        self.ranks = ranks
        self.device = process_group.join(config, ranks)
        self.engine = self._start(folder)
        needs = objective and (objective.kl or objective.kl_in_reward)
        self.reference = self._frozen(folder) if needs else None
        if self.device.type == "cuda":
            optimizer = self.engine.optimizer
            kind = type(getattr(optimizer, "optimizer", optimizer)).__name__
            offers = hasattr(optimizer, "offload_states")
            guards.can_offload(config.zero_stage, offers, kind)
        if config.zero_stage == 3:
            # Before its first forward, ZeRO 3 may gather memory that was never written.
            self.logprobs([[0, 0]])

    def _start(self, folder: str) -> Any:
        module = load_policy(folder, self.config)
        self.adapter = Adapter(module.model, self.adapter_folder) if self.adapter_folder else None
        self.routers = Routers(module, replay=self.config.router_replay)
        self.qk_clip = QkClip(module, self.config.qk_clip_tau) if self.config.qk_clip else None
        cuda = self.device.type == "cuda"
        engine = optimizers.initialize(module, self.config, self._deepspeed_config(), cuda=cuda)
        if self.qk_clip:
            self.qk_clip.start(
                engine.optimizer.optimizer, shards(engine.optimizer, self.config.zero_stage)
            )
        self.rounded = qat.start(module.model, self.config.qat)
        return engine

    def _frozen(self, folder: str) -> Reference | WithoutAdapter:
        if self.adapter:
            return WithoutAdapter(self.adapter, self._own_logprobs)
        module = load_policy(folder, self.config)
        qat.start(module.model, self.config.qat)
        return Reference(module, self.device)

    def _deepspeed_config(self) -> dict[str, Any]:
        config = self.config
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": config.grad_clip,
            "zero_optimization": {"stage": config.zero_stage},
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": config.dtype == "bfloat16"},
            "steps_per_print": 10**9,
            "wall_clock_breakdown": False,
        }

    def learn(self, batch: Batch) -> Mapping[str, float]:
        """One optimizer update per mini-batch; metrics are means over tokens, then over updates.

        An update without a token to learn from changes nothing but the count of updates. Raises
        ``MismatchError``, or changes nothing else either, above the policy loss's limit.
        """
        guards.resident(self._offloaded, ("states", "weights"))
        loss = self.objective
        taught = map(self._taught, batch.updates)
        updates = self._scored([self._pack(samples, self.ranks) for samples in taught])
        if loss and loss.on_mismatch == "skip":
            metrics = self._recorded_mismatch(updates)
            if guards.above(metrics.get("mismatch/kl", 0.0), loss.mismatch_limit):
                self.steps += len(updates)
                return {**metrics, "mismatch/skipped": 1.0, **self._idle()}
        if loss and loss.reset_optimizer:
            optimizers.reset(self.engine.optimizer)
        reports = [self._update(scored, first=not n) for n, scored in enumerate(updates)]
        return components.over_updates(reports)

    def _scored(self, updates: Sequence[Sequence[MicroBatch]]) -> list[list[Scored]]:
        """The micro-batches of each update, with what must be known before the first one."""
        loss = self.objective
        need_own = loss is not None and (
            loss.on_mismatch == "skip" or (loss.old_logprobs == "learner" and len(updates) > 1)
        )
        micros = [micro for update in updates for micro in update]
        nothing = [None] * len(micros)
        own = self._own_logprobs(micros) if need_own else nothing
        reference = (
            self.reference.logprobs(micros) if self.reference and loss and loss.kl else nothing
        )
        scored = (
            Scored(micro=micro, own=mine, reference=theirs)
            for micro, mine, theirs in zip(micros, own, reference, strict=True)
        )
        return [list(islice(scored, len(update))) for update in updates]

    @torch.no_grad()
    def _own_logprobs(self, micros: Sequence[MicroBatch]) -> list[torch.Tensor]:
        self.engine.eval()
        return [self.engine(micro.to(self.device))[0].cpu() for micro in micros]

    def _recorded_mismatch(self, updates: Sequence[Sequence[Scored]]) -> dict[str, float]:
        scored = [one for update in updates for one in update]
        counts = self._counts(scored)
        if not counts.policy:
            return {}
        sums = components.recorded_mismatch(scored)
        return components.means(process_group.together(sums, self.device), counts)

    def _counts(self, scored: Sequence[Scored]) -> Counts:
        """Over all ranks."""
        own = {
            "policy": sum(float(one.micro.policy.sum()) for one in scored),
            "ptx": sum(float(one.micro.ptx.sum()) for one in scored),
            "preference": sum(float(one.micro.preference.count_nonzero()) for one in scored),
        }
        counts = process_group.together(own, self.device)
        return Counts(
            policy=int(counts["policy"]), ptx=counts["ptx"], preference=int(counts["preference"])
        )

    def _update(self, scored: Sequence[Scored], *, first: bool) -> dict[str, float]:
        """One optimizer update; ``first`` since the tokens were sampled."""
        counts = self._counts(scored)
        self._set_lr()
        if counts.nothing:
            self.steps += 1
            return self._idle()
        self.engine.train()
        sums: dict[str, float] = {}
        for index, one in enumerate(scored):
            loss, metrics = self._loss(one.to(self.device), counts, first=first)
            self.engine.set_gradient_accumulation_boundary(index == len(scored) - 1)
            self.engine.backward(loss * self.ranks.size)  # DeepSpeed takes the mean over ranks
            components.add(sums, metrics)
        report = components.means(process_group.together(sums, self.device), counts)
        if first and self.objective:
            guards.recorded_alike(report.get("mismatch/kl", 0.0), self.objective.mismatch_limit)
        routing = self.routers.measure(self.device)
        if first:
            report |= routing
        logits = self.qk_clip.measure() if self.qk_clip else {}
        self.engine.step()
        self.steps += 1
        report["actor/grad_norm"] = float(self.engine.get_global_grad_norm() or 0.0)
        report["actor/lr"] = self._lr()
        return report | logits

    def _idle(self) -> dict[str, float]:
        return {"actor/grad_norm": 0.0, "actor/lr": self._lr()}

    def _taught(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Those with a loss that counts: of others not even the place in a row may show in the
        gradient."""
        if self.ptx_coef:
            return samples
        return [s for s in samples if any(s.loss_mask) or any(s.preference)]

    def _pack(self, samples: Sequence[Sample], ranks: Ranks = ALONE) -> list[MicroBatch]:
        return micro_batches(
            samples,
            row_tokens=self.config.row_tokens,
            micro_batch_tokens=self.config.micro_batch_tokens,
            rank=ranks.rank,
            ranks=ranks.size,
        )

    def _loss(
        self, scored: Scored, counts: Counts, *, first: bool
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The sum of the components, each divided by its own count."""
        logprobs, entropy = self.engine(scored.micro, entropy=counts.policy > 0)
        loss = logprobs.sum() * 0.0
        metrics: dict[str, float] = {}
        if counts.policy:
            assert self.objective is not None, "this learner has supervised samples only"
            policy, metrics = components.policy_loss(self.objective, scored, logprobs, first=first)
            loss = loss + policy / counts.policy
            metrics["actor/entropy"] = float(entropy[scored.micro.policy].sum())
        if counts.ptx:
            nll = components.ptx_loss(scored.micro, logprobs)
            if self.ptx_coef:
                loss = loss + self.ptx_coef * nll / counts.ptx
            metrics["ptx/nll"] = float(nll.detach())
        if counts.preference:
            loss = loss + components.preference_loss(scored.micro, logprobs)
        return loss, metrics

    def _lr(self) -> float:
        return float(self.engine.optimizer.param_groups[0]["lr"])

    def _set_lr(self) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps, self.config)

    @torch.no_grad()
    def logprobs(
        self, sequences: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """Log-probability of every token given those before it; the first entry is 0.0."""
        guards.resident(self._offloaded, ("weights",))
        self.engine.eval()
        samples = [
            Sample(
                token_ids=tuple(ids),
                loss_mask=(True,) * len(ids),
                logprobs=(0.0,) * len(ids),
                advantages=(0.0,) * len(ids),
                ptx=(0.0,) * len(ids),
                temperature=temperature,
            )
            for ids in sequences
        ]
        results = [[0.0] if ids else [] for ids in sequences]
        for micro in self._pack(samples):
            values, _ = self.engine(micro.to(self.device))
            for index, value in zip(micro.sample.tolist(), values.tolist(), strict=True):
                results[index].append(value)
        return results

    def reference_logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """What the frozen reference gives the tokens of each sample that the policy generated, in
        order; none before the first."""
        if self.reference is None:
            raise ValueError("this learner was made without a reference")
        if self.adapter:  # then the reference computes with the learner's own weights
            self.reload()
        micros = self._pack(samples)
        results: list[list[float]] = [[] for _ in samples]
        for micro, values in zip(micros, self.reference.logprobs(micros), strict=True):
            for index, value in zip(micro.sample.tolist(), values.tolist(), strict=True):
                results[index].append(value)
        return results

    def save(self, folder: str) -> None:
        """A Hugging Face export with the native state in ``native/``, all or nothing."""
        guards.resident(self._offloaded, ("states", "weights"))
        checkpoints.save(self, Path(folder))

    def load(self, folder: str) -> None:
        """Restore what ``save`` wrote."""
        guards.resident(self._offloaded, ("states", "weights"))
        checkpoints.load(self, Path(folder))

    def offload(self, what: str) -> bool:
        """Move ``states`` (optimizer, master weights, gradients) or ``weights`` to the host.

        Only between optimizer steps; what needs them raises InfraError until ``reload``. False on
        CPU, where everything is on the host already.
        """
        self._offloaded.add(what)
        if self.device.type == "cpu":
            return False
        from deepspeed.runtime.zero.offload_config import OffloadStateTypeEnum as State

        states = {State.optim_states, State.hp_params, State.lp_grads, State.contiguous_grad_buffer}
        self.engine.offload_states(include=states if what == "states" else {State.lp_params})
        self._give_back()
        return True

    def reload(self) -> None:
        """Bring back everything that was offloaded."""
        if self.device.type != "cpu":
            self.engine.reload_states()
        self._offloaded.clear()

    def connect(self, client: Any) -> None:
        """Choose vLLM's transfer backend for this device and greet the engine through ``client``
        (a ``VLLMWeightSyncClient``)."""
        from palestra.policies.lora_transfer import AdapterTransfer
        from palestra.policies.weights import trainer_engine

        group = torch.distributed.distributed_c10d._get_default_group()
        guards.process_group(group.size(), self.ranks.size, group.bound_device_id)
        self._transfer = (
            AdapterTransfer(self, client, Path(self.adapter_folder))
            if self.adapter_folder
            else trainer_engine(self, client)
        )

    def send_weights(self) -> None:
        """One full weight update of the engine; with an adapter, that alone."""
        from palestra.policies.weights import check_transfer

        guards.resident(self._offloaded, ("weights",))
        if self.device.type == "cuda" and not self.adapter:
            check_transfer(self._transfer)
        before = counters.allocated()
        self._transfer.send_weights()
        self._give_back()
        leaks.collected(before, counters.allocated())

    def _give_back(self) -> None:
        """Memory that torch only keeps in reserve, the buffer of a transfer included: the engine
        maps its own next."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()

    def counters(self) -> dict[str, int]:
        """What this process holds, on a GPU with torch's own accounts."""
        return counters.host() | counters.allocator()

    def export(self, folder: str) -> None:
        """An ordinary Hugging Face folder: weights, configuration and tokenizer; rank 0 writes.

        An adapter is merged into the weights, and lies in ``adapter/`` in peft's form.
        """
        from transformers import AutoTokenizer

        state = {name: tensor.detach().cpu() for name, tensor in self.named_weights()}
        if self.ranks.rank:
            return
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        if self.adapter:
            self.adapter.write(target / "adapter", state)
            state = merged(state, self.adapter.scaling)
        self.engine.module.model.save_pretrained(target, state_dict=state)
        AutoTokenizer.from_pretrained(self.folder).save_pretrained(target)

    def named_weights(self, part: str = "") -> list[tuple[str, torch.Tensor]]:
        """Full weights by their Hugging Face name (gathered under ZeRO 3); those with ``part`` in
        it."""
        guards.resident(self._offloaded, ("weights",))
        import deepspeed

        tensors = [(n, t) for n, t in named_tensors(self.engine.module.model) if part in n]
        if self.config.zero_stage < 3:
            return tensors
        partitioned = [tensor for _, tensor in tensors if hasattr(tensor, "ds_id")]
        with deepspeed.zero.GatheredParameters(partitioned):
            return [(name, tensor.detach().clone()) for name, tensor in tensors]


def named_tensors(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """What a checkpoint holds: parameters, and buffers that are kept (a router's bias)."""
    kept = model.state_dict().keys()
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if name in kept]
    return [*model.named_parameters(), *buffers]
