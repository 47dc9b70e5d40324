"""Recorded experts on the CPU: vLLM 0.32 returns them from its second model runner alone, which
needs Triton. Its connector is given the same here by the runner that the CPU has.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np


def record_on_cpu() -> None:
    """Let CPU workers build a runner that fills ``CompletionOutput.routed_experts``."""
    from vllm.config import VllmConfig
    from vllm.v1.worker import cpu_worker

    if cpu_worker.CPUModelRunner.__name__ == "RecordingRunner":
        return
    cpu_worker.CPUModelRunner = _recording_runner(cpu_worker.CPUModelRunner)
    VllmConfig._verify_aux_output_compatibility = lambda self: None  # asks for the second runner


def _recording_runner(base: Any) -> Any:
    from vllm.distributed.aux_output_connector.worker import get_aux_output_connector

    class RecordingRunner(base):  # type: ignore[misc]
        recorder: Any = None

        def initialize_kv_cache(self, config: Any, is_profiling: bool = False, **more: Any) -> None:
            super().initialize_kv_cache(config, is_profiling, **more)
            if self.vllm_config.aux_output_config.enabled and not is_profiling:
                self.recorder = get_aux_output_connector(self.model, self.vllm_config, config)

        def execute_model(self, scheduler_output: Any, *more: Any) -> Any:
            if self.recorder:
                self.recorder.begin_step(scheduler_output.aux_output_connector_metadata)
            return super().execute_model(scheduler_output, *more)

        def sample_tokens(self, grammar_output: Any) -> Any:
            ran = self.execute_model_state is not None
            output = super().sample_tokens(grammar_output)
            if self.recorder and ran:
                output.aux_output_connector_output = self._routed(output.sampled_token_ids)
            return output

        def _routed(self, sampled: list[list[int]]) -> Any:
            batch, count = self.input_batch, self.input_batch.num_reqs
            step = SimpleNamespace(
                req_ids=batch.req_ids,
                query_start_loc_np=self.query_start_loc.np,
                num_computed_tokens_np=batch.num_computed_tokens_cpu[:count],
            )
            pending = self.recorder.prepare_output(step)
            pending.enqueue_cpu_copy(
                num_sampled=np.array([len(ids) for ids in sampled]),
                num_rejected=np.zeros(count, dtype=np.int64),
            )
            return pending.process_output()

    return RecordingRunner
