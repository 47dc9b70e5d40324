"""The learning side: a DeepSpeed engine over a Hugging Face causal LM.

The learner adds per-token loss components, each divided by its own count over the whole batch, and
never learns which algorithm they come from. The same code runs on CPU and CUDA.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from palestra.policies import counters, guards, leaks, optimizers, process_group
from palestra.policies.config import LearnerConfig
from palestra.policies.logprobs import token_logprobs
from palestra.policies.packing import MicroBatch, attention_mask, micro_batches
from palestra.policies.process_group import ALONE, Ranks
from palestra.policies.qk_clip import QkClip
from palestra.policies.replacing import replace_folder
from palestra.policies.schedules import learning_rate
from palestra.policies.shards import shards
from palestra.rl.errors import CheckpointError
from palestra.rl.types import Batch, Sample

TokenLoss = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, dict[str, torch.Tensor]]
]
"""(log-probabilities, recorded log-probabilities, advantages), all [N] -> loss [N], metrics [N]."""


class PolicyModule(nn.Module):
    """A causal LM that returns log-probabilities of chosen tokens instead of logits."""

    def __init__(self, model: Any, chunk: int) -> None:
        super().__init__()
        self.model = model
        self.chunk = chunk

    def forward(self, micro: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of each token that carries a loss, both [N]."""
        hidden = self.model.model(
            input_ids=micro.token_ids,
            position_ids=micro.positions,
            attention_mask=attention_mask(micro.segments, micro.parents),
            use_cache=False,
        ).last_hidden_state
        return token_logprobs(
            self.model.lm_head,
            hidden.flatten(0, 1)[micro.source],
            micro.target,
            micro.temperature,
            chunk=self.chunk,
        )


class DeepSpeedLearner:
    """Implements ``rl.types.Learner`` for one rank.

    ``folder`` is a Hugging Face model folder; ``objective`` the per-token policy loss; ``ptx_coef``
    weighs the supervised loss against it. All ranks are called alike, with the same batch: each
    learns from its share of the rows.
    """

    def __init__(
        self,
        folder: str,
        config: LearnerConfig,
        objective: TokenLoss,
        *,
        ptx_coef: float = 1.0,
        ranks: Ranks = ALONE,
    ) -> None:
        self.folder = folder
        self.config = config
        self.objective = objective
        self.ptx_coef = ptx_coef
        self.steps = 0
        self._offloaded: set[str] = set()
        self.ranks = ranks
        self.device = process_group.join(config, ranks)
        self.engine = self._start(folder)
        if self.device.type == "cuda":
            optimizer = self.engine.optimizer
            kind = type(getattr(optimizer, "optimizer", optimizer)).__name__
            offers = hasattr(optimizer, "offload_states")
            guards.can_offload(config.zero_stage, offers, kind)
        if config.zero_stage == 3:
            # Before its first forward, ZeRO 3 may gather memory that was never written.
            self.logprobs([[0, 0]])

    def _start(self, folder: str) -> Any:
        from transformers import AutoModelForCausalLM

        dtype = getattr(torch, self.config.dtype)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        model.config.use_cache = False
        module = PolicyModule(model, self.config.logprob_chunk)
        self.qk_clip = QkClip(module, self.config.qk_clip_tau) if self.config.qk_clip else None
        cuda = self.device.type == "cuda"
        engine = optimizers.initialize(module, self.config, self._deepspeed_config(), cuda=cuda)
        if self.qk_clip:
            self.qk_clip.start(
                engine.optimizer.optimizer, shards(engine.optimizer, self.config.zero_stage)
            )
        return engine

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
        """One optimizer step over all samples of the batch; metrics are means over tokens.

        A batch without a token to learn from changes nothing but the count of steps.
        """
        guards.resident(self._offloaded, ("states", "weights"))
        micros = self._pack(batch.samples, self.ranks)
        counts = {
            "policy": sum(float(m.policy.sum()) for m in micros),
            "ptx": sum(float(m.ptx.sum()) for m in micros),
        }
        counts = process_group.together(counts, self.device)
        policy_tokens, ptx_tokens = int(counts["policy"]), counts["ptx"]
        self._set_lr()
        sums: dict[str, float] = {}
        if not policy_tokens and not ptx_tokens:
            self.steps += 1
            return {"actor/grad_norm": 0.0, "actor/lr": self._lr()}
        self.engine.train()
        for index, micro in enumerate(micros):
            loss, metrics = self._loss(micro.to(self.device), policy_tokens, ptx_tokens)
            self.engine.set_gradient_accumulation_boundary(index == len(micros) - 1)
            self.engine.backward(loss * self.ranks.size)  # DeepSpeed takes the mean over ranks
            for name, value in metrics.items():
                seen = sums.get(name, 0.0)
                sums[name] = max(seen, value) if name.startswith("max:") else seen + value
        logits = self.qk_clip.measure() if self.qk_clip else {}
        self.engine.step()
        self.steps += 1
        sums = process_group.together(sums, self.device)
        return self._report(sums, policy_tokens, ptx_tokens) | logits

    def _pack(self, samples: Sequence[Sample], ranks: Ranks = ALONE) -> list[MicroBatch]:
        if not self.ptx_coef:  # not even their place in a row may show in the gradient
            samples = [sample for sample in samples if any(sample.loss_mask)]
        return micro_batches(
            samples,
            row_tokens=self.config.row_tokens,
            micro_batch_tokens=self.config.micro_batch_tokens,
            rank=ranks.rank,
            ranks=ranks.size,
        )

    def _loss(
        self, micro: MicroBatch, policy_tokens: int, ptx_tokens: float
    ) -> tuple[torch.Tensor, dict[str, float]]:
        logprobs, entropy = self.engine(micro)
        loss = logprobs.sum() * 0.0
        metrics: dict[str, float] = {}
        if policy_tokens:
            chosen = micro.policy
            per_token, extra = self.objective(
                logprobs[chosen], micro.logprobs[chosen], micro.advantages[chosen]
            )
            loss = loss + per_token.sum() / policy_tokens
            gap = (logprobs[chosen].detach() - micro.logprobs[chosen]).abs()
            metrics |= {name: float(value.sum()) for name, value in extra.items()}
            metrics["actor/pg_loss"] = float(per_token.detach().sum())
            metrics["actor/entropy"] = float(entropy[chosen].sum())
            metrics["mismatch/logprob_abs_diff"] = float(gap.sum())
            metrics["max:mismatch/logprob_abs_diff_max"] = float(gap.max()) if len(gap) else 0.0
        if ptx_tokens:
            nll = -(micro.ptx * logprobs).sum()
            if self.ptx_coef:
                loss = loss + self.ptx_coef * nll / ptx_tokens
            metrics["ptx/nll"] = float(nll.detach())
        return loss, metrics

    def _report(
        self, sums: Mapping[str, float], policy_tokens: int, ptx_tokens: float
    ) -> dict[str, float]:
        report: dict[str, float] = {}
        for name, value in sums.items():
            if name.startswith("max:"):
                report[name.removeprefix("max:")] = value
            else:
                report[name] = value / (ptx_tokens if name.startswith("ptx/") else policy_tokens)
        report["actor/grad_norm"] = float(self.engine.get_global_grad_norm() or 0.0)
        report["actor/lr"] = self._lr()
        return report

    def _lr(self) -> float:
        return float(self.engine.optimizer.param_groups[0]["lr"])

    def _set_lr(self) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps, self.config)

    @torch.no_grad()
    def logprobs(
        self, sequences: Sequence[Sequence[int]], *, temperature: float = 1.0
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

    def save(self, folder: str) -> None:
        """A Hugging Face export with the native state in ``native/``, renamed into place whole."""
        guards.resident(self._offloaded, ("states", "weights"))
        target = Path(folder)
        partial = target.with_name(target.name + ".partial")
        try:
            if self.ranks.rank == 0:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            torch.distributed.barrier()
            self.export(str(partial))
            self.engine.save_checkpoint(str(partial), tag="native")
            torch.distributed.barrier()
            if self.ranks.rank == 0:
                (partial / "learner.json").write_text(json.dumps({"steps": self.steps}))
                replace_folder(partial, target)
            torch.distributed.barrier()
        except (OSError, RuntimeError, SafetensorError) as error:
            # RuntimeError is what torch.save says when the disk is full.
            shutil.rmtree(partial, ignore_errors=True)
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise CheckpointError(f"cannot write {folder}: {reason}") from error

    def load(self, folder: str) -> None:
        """Restore what ``save`` wrote."""
        guards.resident(self._offloaded, ("states", "weights"))
        try:
            steps = json.loads((Path(folder) / "learner.json").read_text())["steps"]
            path, _ = self.engine.load_checkpoint(folder, tag="native")
        except (OSError, RuntimeError, ValueError, KeyError, AssertionError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise CheckpointError(f"cannot load {folder}: {reason}") from error
        if path is None:
            raise CheckpointError(f"{folder} holds no checkpoint that can be loaded")
        self.steps = steps

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
        from palestra.policies.weights import trainer_engine

        group = torch.distributed.distributed_c10d._get_default_group()
        guards.process_group(group.size(), self.ranks.size, group.bound_device_id)
        self._transfer = trainer_engine(self, client)

    def send_weights(self) -> None:
        """One full weight update of the engine."""
        from palestra.policies.weights import check_transfer

        guards.resident(self._offloaded, ("weights",))
        if self.device.type == "cuda":
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
        """An ordinary Hugging Face folder: weights, configuration and tokenizer; rank 0 writes."""
        from transformers import AutoTokenizer

        state = {name: tensor.detach().cpu() for name, tensor in self.named_weights()}
        if self.ranks.rank:
            return
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self.engine.module.model.save_pretrained(target, state_dict=state)
        AutoTokenizer.from_pretrained(self.folder).save_pretrained(target)

    def named_weights(self) -> list[tuple[str, torch.Tensor]]:
        """Full weights by their Hugging Face name (gathered under ZeRO 3)."""
        guards.resident(self._offloaded, ("weights",))
        import deepspeed

        parameters = list(self.engine.module.model.named_parameters())
        if self.config.zero_stage < 3:
            return parameters
        with deepspeed.zero.GatheredParameters([p for _, p in parameters]):
            return [(name, p.detach().clone()) for name, p in parameters]
