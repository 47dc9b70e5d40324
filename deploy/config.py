"""One run's configuration: the components' models under one roof."""

from __future__ import annotations

from palestra.envs.config import TasksConfig
from palestra.policies.config import PolicyConfig
from palestra.rewards.config import RewardsConfig
from palestra.rl.config import RLConfig
from palestra.rl.settings import Settings
from palestra.rollout.config import RolloutConfig
from palestra.sandbox.config import SandboxConfig


class RunConfig(Settings):
    """A recipe file (`recipes/*.toml`), section by section."""

    name: str = "run"
    """Name of the run's folder below `runs/`."""
    seed: int = 0
    """Seed of the run: task order, sampling, initial weights."""
    logger: list[str] = ["console", "jsonl", "tensorboard"]
    """Where metrics go; also `wandb` (offline), `mlflow` and `trackio`, where they are installed,
    which write into the run's folder."""
    tasks: TasksConfig = TasksConfig()
    policy: PolicyConfig = PolicyConfig()
    rollout: RolloutConfig = RolloutConfig()
    sandbox: SandboxConfig = SandboxConfig()
    rewards: RewardsConfig = RewardsConfig()
    rl: RLConfig = RLConfig()
