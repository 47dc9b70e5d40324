"""Objectives: one small file each, per-token losses from per-token log-probabilities."""
