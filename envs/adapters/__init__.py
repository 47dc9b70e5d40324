"""Environments of other projects, played as ours."""
