"""What an exporter hands over: the file's bytes, and what was found in them."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from finet_deploy.errors import FinetDeployError
from finet_deploy.export.operators import OnnxOperators, PteOperators, count_normalization_ops

__all__ = [
    "Exported",
    "exporter_errors",
    "needs",
    "program_op_counts",
    "quiet",
    "trace_program",
]

INPUT_NAME, OUTPUT_NAME = "input", "output"


@dataclass(frozen=True)
class Exported:
    """One file, not yet written. The fields mean what the manifest's artifact entry says."""

    data: bytes
    exporter_version: str
    op_counts: dict[str, int]
    delegates: int | None = None
    delegated_share: float | None = None
    nodes_outside: int | None = None
    outside_ops: dict[str, int] = field(default_factory=dict)
    bytecode_version: int | None = None
    operators: tuple[str, ...] = ()
    dtype: str = "float32"
    fp32_ops: dict[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    operator_map: PteOperators | OnnxOperators | None = None

    @property
    def normalization_ops(self) -> int:
        """Normalizations of any kind left in the file."""
        return count_normalization_ops(self.op_counts)


def needs(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency. FinetDeployError with the install command when it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise FinetDeployError(
            f"{module.partition('.')[0]} cannot be loaded: {error}", do=f"pip install 'finet-deploy[{extra}]'"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the libraries' remarks to their own developers: warnings, and log lines below ERROR."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch", "torchao", "executorch", "onnxscript", "onnx_ir", "root")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextlib.contextmanager
def exporter_errors(fmt: str) -> Iterator[None]:
    """Turn whatever an exporter raises into one readable line; the original stays attached as the cause."""
    try:
        yield
    except (FinetDeployError, OSError, MemoryError):
        raise
    except Exception as error:  # exporters raise classes of their own, assertions and bare exceptions
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise FinetDeployError(
            f"cannot export to .{fmt}: {type(error).__name__}: {reason[:200]}",
            do="check that the network is traceable with a static input, or leave this format out",
        ) from error


def trace_program(model: nn.Module, x: Tensor) -> ExportedProgram:
    """The graph that the `.pte` and `.onnx` exporters share; neither changes it. x: (1, 3, H, W), static."""
    with exporter_errors("pte or .onnx"), quiet(), torch.no_grad():
        return torch.export.export(model, (x,))


def program_op_counts(program: ExportedProgram) -> dict[str, int]:
    """Operators of the traced graph, before any exporter folded or lowered anything."""
    counts: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return counts
