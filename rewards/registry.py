"""Every reward by name: ours, and those that installed packages offer as plugins.

A plugin is an entry point of the group ``palestra.rewards`` that names a ``RewardFn``, a
``GroupRewardFn``, or a factory of either.
"""

from __future__ import annotations

from palestra.rewards.answer import constraints, exact, numeric, symbolic
from palestra.rewards.budget import submitted, within_budget
from palestra.rewards.changes import diff_size, patch_applies
from palestra.rewards.faithfulness.judged import JudgedFaithfulness
from palestra.rewards.faithfulness.reward import faithfulness
from palestra.rewards.false_claim import false_claim
from palestra.rewards.format import well_formed
from palestra.rewards.judging.graded import graded
from palestra.rewards.judging.pairwise import pairwise_critic
from palestra.rewards.kinds import AnyReward, RewardFactory
from palestra.rewards.length import length
from palestra.rewards.recorded import recorded
from palestra.rewards.rubric_met import RubricMet
from palestra.rewards.style import style
from palestra.rewards.tests_pass import tests_fraction, tests_pass
from palestra.rewards.verifier import verifier
from palestra.rl.plugins import Registry

REWARDS: Registry[AnyReward | RewardFactory] = Registry(
    "reward",
    "palestra.rewards",
    {
        "tests_pass": tests_pass,
        "tests_fraction": tests_fraction,
        "well_formed": well_formed,
        "submitted": submitted,
        "within_budget": within_budget,
        "length": length,
        "patch_applies": patch_applies,
        "diff_size": diff_size,
        "style": style,
        "exact": exact,
        "numeric": numeric,
        "symbolic": symbolic,
        "constraints": constraints,
        "verifier": verifier,
        "faithfulness": faithfulness,
        "judged_faithfulness": JudgedFaithfulness,
        "rubric_met": RubricMet,
        "false_claim": false_claim,
        "recorded": recorded,
        "pairwise_critic": pairwise_critic,
        "graded": graded,
    },
)
