"""The model, its engine, its learner and its supervised stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from palestra.rl.settings import Settings


class TinyConfig(Settings):
    """Shape of the policy that is built when no model folder is given."""

    architecture: Literal["qwen3", "qwen3_moe", "deepseek_v3"] = "qwen3"
    """`qwen3_moe` has experts in every layer; `deepseek_v3`, which is Kimi K2's, has latent
    attention, and from the second layer on experts beside a shared one."""
    vocab_size: int = Field(default=1024, ge=300)
    """Tokens of the byte-level BPE tokenizer."""
    hidden_size: int = 192
    """Width of the residual stream."""
    intermediate_size: int = 512
    """Width of the feed-forward layers."""
    layers: int = Field(default=4, ge=1)
    """Decoder layers."""
    heads: int = 6
    """Query heads."""
    kv_heads: int = 2
    """Key and value heads; divides `heads`. Without effect on latent attention."""
    head_dim: int = 32
    """Width of one head; of latent attention one half is rotary."""
    experts: int = Field(default=8, ge=2)
    """Routed experts of a layer, two of which see a token; without effect on `qwen3`."""
    max_position_embeddings: int = 1024
    """Longest sequence."""


class EngineConfig(Settings):
    """The vLLM rollout engine."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Weights and activations; float32 on CPU, where bfloat16 is emulated."""
    max_num_seqs: int = Field(default=128, ge=1)
    """Sequences decoded together."""
    max_num_batched_tokens: int = Field(default=4096, ge=1)
    """Tokens per engine step; at least the context length."""
    gpu_memory_utilization: float = Field(default=0.5, gt=0, lt=1)
    """Share of a GPU for weights and KV cache; without effect on CPU."""
    kv_cache_gib: int = Field(default=1, ge=1)
    """KV cache on CPU, in GiB; without effect on GPU."""
    threads: int = Field(default=1, ge=1)
    """OpenMP threads of the engine on CPU."""
    return_routed_experts: bool = False
    """Record which experts every token went to, and compare with where the learner sends it
    (`mismatch/router_diff_frac`); takes a byte or two per token, layer and expert."""


class QatConfig(Settings):
    """INT4 quantisation-aware training: weights alone, symmetric, in groups of 32."""

    enabled: bool = False
    """Learner and engine compute with weights rounded to four bits; `palestra export` packs them
    as both have used them."""
    weights: str = r"\.experts\."
    """Regular expression, searched in the weights' names in a checkpoint, for those to round; by
    default routed experts, as in Kimi K2 Thinking."""


class LearnerConfig(Settings):
    """The DeepSpeed learner."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Working weights; float32 on CPU, bfloat16 with float32 masters on GPU."""
    zero_stage: Literal[1, 2, 3] = 2
    """ZeRO stage."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` orthogonalises the updates of matrices and leaves embeddings, head, norms and biases
    to AdamW. A model that was pre-trained with AdamW is best trained on with it."""
    lr: float = Field(default=1e-6, gt=0)
    """Peak learning rate, of AdamW and Muon alike: their updates are of one size."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon's decay of the momentum."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay of the first and second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon. Near the size of the gradients it keeps parameters still that have nothing
    but noise, which otherwise move as far as all others."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of both optimizers."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Global gradient norm above which gradients are scaled down."""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "linear"
    """How the learning rate falls: `linear` and `cosine` over `decay_steps` from the start, `wsd`
    (warm-up, stable, decay) over `decay_steps` after `warmup_steps` and `stable_steps`."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly, whatever the schedule."""
    stable_steps: int = Field(default=0, ge=0)
    """Steps at the peak between warm-up and decay of `wsd`."""
    decay_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate falls; 0 keeps it constant."""
    min_lr_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of the peak learning rate at which it stops falling."""
    qk_clip: bool = False
    """Scale attention heads back after each step in which one of their logits exceeds
    `qk_clip_tau`; costs one more product of queries and keys per layer."""
    qk_clip_tau: float = Field(default=100.0, gt=0)
    """Largest attention logit that is left alone; 100 is K2's."""
    router_replay: bool = False
    """Send every token to the experts that the engine recorded for it (R3, arXiv 2510.11370); needs
    `policy.engine.return_routed_experts`."""
    micro_batch_tokens: int = Field(default=4096, ge=16)
    """Tokens of one packed micro-batch, padding included."""
    row_tokens: int = Field(default=512, ge=16)
    """Length of a packed row; a longer sample gets a row of its own."""
    logprob_chunk: int = Field(default=512, ge=1)
    """Tokens whose logits exist at once."""
    gradient_checkpointing: bool = False
    """Keep each layer's input alone for the backward pass and compute the rest of it again: a third
    more time, and memory for one layer's activations in place of all."""
    threads: int = Field(default=2, ge=1)
    """Torch threads of the learner on CPU."""
    qat: QatConfig = QatConfig()


class LoraConfig(Settings):
    """Low-rank adapters on a frozen model, trained with peft and served by vLLM (arXiv 2106.09685);
    values are our defaults. The supervised stage trains all weights."""

    enable: bool = False
    """RL trains adapters and leaves the model's own weights as they are."""
    rank: int = Field(default=16, ge=1, le=512)
    """Rank of each adapter; vLLM has no room for more than 512."""
    alpha: int = Field(default=32, ge=1)
    """An adapter counts `alpha / rank`."""
    target_modules: list[str] = Field(default=["all-linear"], min_length=1)
    """Linear layers that get an adapter, e.g. `["q_proj", "v_proj"]`; `["all-linear"]` is all but
    the output head."""


class SftConfig(Settings):
    """Supervised warm start on demonstrations that the environment writes."""

    steps: int = Field(default=0, ge=0)
    """Optimizer steps; 0 skips the stage."""
    corpus_steps: int = Field(default=0, ge=0)
    """Steps of plain language modelling on the environment's sources before that."""
    batch_size: int = Field(default=64, ge=1)
    """Demonstrations per step."""
    lr: float = Field(default=2e-3, gt=0)
    """Peak learning rate; falls linearly to a tenth."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps over which the learning rate rises linearly."""
    mistakes: float = Field(default=0.3, ge=0, le=1)
    """Share of demonstrations with a planted mistake that is then repaired."""
    careless: float = Field(default=0.0, ge=0, le=1)
    """Share of the other demonstrations that submit without running the tests."""
    gives_up: float = Field(default=0.0, ge=0, le=1)
    """Share of those careless ones that submit without changing anything: for RL to tell apart."""
    recites: float = Field(default=0.0, ge=0, le=1)
    """Share of all that write lines of the file down first: length that RL may find needless."""


class PolicyConfig(Settings):
    """The policy: a Hugging Face causal-LM folder, or the tiny policy built on the spot."""

    model: str = "tiny"
    """`tiny`, or the path of a Hugging Face folder with weights and tokenizer."""
    num_gpus: int = Field(default=1, ge=1)
    """GPUs that the policy takes, on any nodes of the Ray cluster: on each of them one rank of the
    learner and one engine take turns. CPUs where there are none."""
    tiny: TinyConfig = TinyConfig()
    engine: EngineConfig = EngineConfig()
    learner: LearnerConfig = LearnerConfig()
    lora: LoraConfig = LoraConfig()
    sft: SftConfig = SftConfig()

    @model_validator(mode="after")
    def _replay_needs_a_record(self) -> PolicyConfig:
        if self.learner.router_replay and not self.engine.return_routed_experts:
            raise ValueError("learner.router_replay needs engine.return_routed_experts = true")
        return self

    @model_validator(mode="after")
    def _adapters_stand_alone(self) -> PolicyConfig:
        learner = self.learner
        if self.lora.enable and learner.optimizer == "muon":
            raise ValueError('lora.enable needs learner.optimizer = "adamw"')
        others = {
            "qk_clip": learner.qk_clip,
            "qat.enabled": learner.qat.enabled,
            "router_replay": learner.router_replay,
        }
        together = [name for name, on in others.items() if on]
        if self.lora.enable and together:
            raise ValueError(f"lora.enable does not go with learner.{together[0]}")
        if self.lora.enable and self.num_gpus > 1:
            raise ValueError("lora.enable is for num_gpus = 1 in this version")
        return self
