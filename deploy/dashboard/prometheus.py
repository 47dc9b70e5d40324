"""The last metrics of every run in the form that Prometheus reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from palestra.deploy.dashboard.runs import Runs, State, UnknownRun
from palestra.deploy.dashboard.steps import Steps


def exposition(runs: Runs, steps_of: Callable[[str], Steps]) -> bytes:
    """``palestra_metric{run, name}``, ``palestra_step{run}``, ``palestra_run_state{run, state}``
    and ``palestra_step_finished_seconds{run}`` as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Runs(runs, steps_of))
    return generate_latest(registry)


class _Runs(Collector):
    def __init__(self, runs: Runs, steps_of: Callable[[str], Steps]) -> None:
        self._runs = runs
        self._steps_of = steps_of

    def collect(self) -> Iterable[Metric]:
        """One family per kind of number."""
        last = GaugeMetricFamily(
            "palestra_metric", "A metric of the last step that has it.", labels=["run", "name"]
        )
        step = GaugeMetricFamily("palestra_step", "The last finished step.", labels=["run"])
        finished = GaugeMetricFamily(
            "palestra_step_finished_seconds",
            "When the last step was finished, since the epoch.",
            labels=["run"],
        )
        state = GaugeMetricFamily(
            "palestra_run_state", "1 for the state that a run is in.", labels=["run", "state"]
        )
        for name, steps, condition in self._each():
            for metric in steps.values:
                value = steps.last(metric)
                last.add_metric([name, metric], math.nan if value is None else value)
            for own in State:
                state.add_metric([name, own.value], float(own is condition))
            if steps.steps:
                step.add_metric([name], steps.steps[-1])
                finished.add_metric([name], steps.times[-1])
        return [last, step, finished, state]

    def _each(self) -> Iterator[tuple[str, Steps, State]]:
        for name in self._runs.names():
            try:
                yield name, self._steps_of(name), self._runs.condition(name).state
            except UnknownRun:  # removed meanwhile
                continue
