"""TRL's side: its GRPOTrainer with plain generation, one optimizer step per command.

The subclass changes one thing, the length of completions: every row is cut at the length that the
plan gives it, after TRL generated the batch. That is what plain batch generation does with a row
that ended early: it stays in the batch until the longest row is done, and TRL masks what follows
its end. No id ends a row by itself (``eos_token_id=None``), so both sides sample the same
distribution. Everything else is clocks.
"""

from __future__ import annotations

import importlib.metadata
import sys
import time
from typing import Any

from shared import Lanes, Wire, digest, read_plan, reward


def main(plan: dict, wire: Wire) -> None:
    """Build the trainer, then let ``GRPOTrainer.train`` run, one step per command."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    lanes = Lanes()
    seen: dict[str, Any] = {}

    class Trainer(GRPOTrainer):
        """GRPO with planned lengths and clocks."""

        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            lengths = plan["steps"][self.state.global_step]["lengths"]
            with lanes.lane("generate"):
                ids, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
                ids = [row[:length] for row, length in zip(ids, lengths, strict=True)]
            seen["prompts"] = digest(prompt_ids)
            seen["generated"] = sum(map(len, ids))
            seen["learned"] = seen["generated"] + sum(map(len, prompt_ids))
            width = max(map(len, prompt_ids)) + max(map(len, ids))
            seen["padded"] = len(ids) * width
            return ids, logprobs

        def _prepare_inputs(self, *args: Any, **kwargs: Any) -> Any:
            with lanes.lane("prepare"):
                return super()._prepare_inputs(*args, **kwargs)

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            with lanes.lane("forward"):
                return super().compute_loss(*args, **kwargs)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            with lanes.lane("training_step"):
                loss = super().training_step(*args, **kwargs)
            seen["backward_done"] = time.perf_counter()
            return loss

    def rewards(completion_ids: list[list[int]], **_: Any) -> list[float]:
        values = [reward(ids) for ids in completion_ids]
        seen["reward"] = sum(values) / len(values)
        return values

    class Obedient(TrainerCallback):
        """Holds the trainer at the start of each step until it is told to go on, and answers with
        the step before: logging and data loading between two steps belong to the first."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.report()
            command = wire.receive()
            if command["do"] == "quit":
                raise SystemExit(0)
            torch.set_num_threads(command["threads"])
            lanes.take()
            seen["started"] = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            lanes.add("optimizer", time.perf_counter() - seen["backward_done"])

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.report()

        def report(self) -> None:
            if "started" not in seen:
                names = ("trl", "torch", "transformers", "accelerate", "datasets")
                wire.send(versions={name: importlib.metadata.version(name) for name in names})
                return
            wall = time.perf_counter() - seen.pop("started")
            wire.send(inside_s=wall, **in_phases(lanes.take(), wall), **seen)

    micro = plan["trl_micro_batch"]
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(plan["policy"], dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(plan["policy"], padding_side="left"),
        reward_funcs=rewards,
        train_dataset=Dataset.from_list(
            [{"prompt": plan["prompts"][i]} for s in plan["steps"] for i in s["prompts"]]
        ),
        callbacks=[Obedient()],
        args=GRPOConfig(
            output_dir=plan["work"] + "/trl",
            max_steps=len(plan["steps"]),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=plan["rows"] // micro,
            num_generations=plan["group"],
            shuffle_dataset=False,
            max_completion_length=plan["max_length"],
            generation_kwargs={"eos_token_id": None},
            temperature=1.0,
            # The objective that both sides share: policy gradient of r - mean(r), summed over
            # tokens and divided by their number in the batch. On-policy, nothing is clipped.
            loss_type="dapo",
            scale_rewards="none",
            beta=0.0,
            num_iterations=1,
            learning_rate=plan["lr"],
            adam_beta1=plan["betas"][0],
            adam_beta2=plan["betas"][1],
            adam_epsilon=1e-8,
            weight_decay=0.0,
            max_grad_norm=plan["grad_clip"],
            lr_scheduler_type="constant",
            # In TRL's favour: its default recomputes activations in the backward pass.
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=plan["seed"],
        ),
    )
    trainer.eos_token_ids = [-1]
    trainer.train()
    wire.receive()


def in_phases(lanes: dict[str, float], wall: float) -> dict[str, dict[str, float]]:
    """Nested clocks as phases that add up to the step."""
    backward = lanes["training_step"] - lanes["prepare"] - lanes["forward"]
    learn = lanes["forward"] + backward + lanes["optimizer"]
    return {
        "phases": {
            "generate": lanes["generate"],
            "score": lanes["prepare"] - lanes["generate"],
            "learn": learn,
            "sync": 0.0,
            "rest": wall - lanes["prepare"] - learn,
        },
        "detail": {
            "learn: forward": lanes["forward"],
            "learn: backward": backward,
            "learn: clip and optimizer": lanes["optimizer"],
        },
    }


if __name__ == "__main__":
    pipe = Wire()
    main(read_plan(sys.argv[1]), pipe)
