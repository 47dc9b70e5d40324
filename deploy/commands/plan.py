"""``palestra plan``: what a recipe will take, from its model's ``config.json`` alone."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palestra.deploy.config_file import load_recipe
from palestra.policies.config import PolicyConfig
from palestra.rl.errors import UserError


def plan(args: Namespace) -> int:
    """Print the plan; 1 where it does not fit."""
    from palestra.deploy.plan.gpus import gpu_named
    from palestra.deploy.plan.memory import Paper
    from palestra.deploy.plan.report import lines
    from palestra.deploy.plan.report import plan as make
    from palestra.policies.shape import shape_of

    gpu = gpu_named(args.gpu)
    resolved = load_recipe(args.recipe, args.set)
    config = model_config(args.model_config, resolved.config.policy)
    shape = shape_of(config, resolved.config.policy.lora)
    paper = Paper(engine_gpus=args.engine_gpus, expert_bits=args.expert_bits)
    positions = int(config.get("max_position_embeddings", 0))
    found = make(resolved, shape, positions, gpu, paper)
    print(json.dumps(found.to_json(), indent=2) if args.json else "\n".join(lines(found)))
    return 0 if found.fits else 1


def model_config(given: str | None, policy: PolicyConfig) -> Mapping[str, Any]:
    """The ``config.json`` to plan for: the one given, else the policy's own."""
    if given is None and policy.model == "tiny":
        from palestra.policies.tiny_shapes import shape_of as tiny

        tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
        config: Mapping[str, Any] = tiny(policy.tiny, **tokens).to_dict()
        return config
    path = Path(given) if given else Path(policy.model) / "config.json"
    try:
        read = json.loads(path.read_text())
    except OSError as error:
        hint = "" if given else "; name a config.json with --model-config"
        raise UserError(f"{path}: {error.strerror}{hint}") from error
    except ValueError as error:
        raise UserError(f"{path}: no model's config.json: {error}") from error
    if not isinstance(read, dict):
        raise UserError(f"{path}: no model's config.json: not an object")
    return read
