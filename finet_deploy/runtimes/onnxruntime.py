"""ONNX Runtime: `.onnx` files on its CPU provider. Nothing here imports torch."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from finet_deploy.errors import FinetDeployError
from finet_deploy.runtimes.session import Array, Session

__all__ = ["OnnxruntimeSession"]

ERRORS_ONLY = 3  # log severity: warnings about unused initializers and the like are not for users


@functools.cache
def _onnxruntime() -> Any:
    # From 1.29 on it sends telemetry, writes a device id and a database below the home folder and starts a thread.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise FinetDeployError(
            f"onnxruntime cannot be loaded: {error}", do="pip install 'finet-deploy[onnx]'"
        ) from error
    return onnxruntime


def _process_threads() -> int | None:
    """Threads of this process, where the system says (Linux)."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None


class OnnxruntimeSession(Session):
    """A `.onnx` file, all graph optimizations on, operators one after another, idle threads asleep."""

    runtime = "onnxruntime"

    def _load(self, threads: int) -> None:
        ort = _onnxruntime()
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        named = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NotImplemented")
        raised = tuple(getattr(state, name) for name in (*named, "RuntimeException", "EPFail", "NoSuchFile"))
        self.errors = (*raised, RuntimeError, ValueError)  # ValueError: a damaged name is not UTF-8
        self.version = ort.__version__
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = ERRORS_ONLY
        # Spinning threads would take the cores from whatever runs beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        before = _process_threads()
        # Without its fallback, which prints to stdout and loads the damaged file a second time.
        self._session = ort.InferenceSession(
            str(self.path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        after = _process_threads()
        self.threads = self._session.get_session_options().intra_op_num_threads
        if before is not None and after is not None:
            # The caller's thread works too. What the process really started counts, not what was asked for.
            self.threads = 1 + after - before
        self._read_signature()

    def _read_signature(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
            raise ValueError("its graph does not take one fp32 tensor and give one tensor")
        if all(isinstance(size, int) for size in inputs[0].shape):
            self.input_shape = tuple(inputs[0].shape)
        self._input, self._outputs = inputs[0].name, [outputs[0].name]

    def _prepare(self, x: Array) -> Callable[[], Any]:
        return functools.partial(self._session.run, self._outputs, {self._input: x})

    def _output(self, raw: Any) -> Array:
        return np.asarray(raw[0])
