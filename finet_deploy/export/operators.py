"""From a file's operators back to the network's modules: `operators.json` of a bundle, as data. No torch.

The runtimes' own events carry names of their own. What leads from them to the network is known to the exporters only,
when they write the file: kept here, without the paths that exporters keep beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from finet_deploy.errors import FinetDeployError
from finet_deploy.json_files import BadJson, decode_json

__all__ = [
    "MAX_OPERATORS_BYTES",
    "OPERATORS_FILE",
    "NodeEntry",
    "OnnxOperators",
    "Operators",
    "PteOperators",
    "TensorInfo",
    "count_normalization_ops",
    "decode_operators",
    "encode_operators",
]

OPERATORS_FILE = "operators.json"
SCHEMA_VERSION: Final = 1
MAX_OPERATORS_BYTES = 64 << 20

# ATen (`aten.batch_norm.default`, `aten._native_batch_norm_legit_no_training.default`, `aten::batch_norm`) and ONNX
# (`BatchNormalization`) names alike.
_NORMALIZATION = re.compile(r"(batch|layer|group|instance|rms)_?norm", re.IGNORECASE)

Count = Annotated[int, Meta(ge=0)]


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all entries: immutable, by keyword, nothing unknown."""


class TensorInfo(msgspec.Struct, frozen=True, array_like=True):
    """A tensor that a node reads or writes. constant: its values are in the file. dtype: numpy's name."""

    name: str
    shape: tuple[Count, ...]
    dtype: str
    constant: bool


class NodeEntry(_Data, frozen=True, kw_only=True):
    """One node of the graph that the runtime was given.

    op: the exporter's name. module: path in the deployed network, empty for the network itself. macs: multiply-adds.
    reason: why XNNPACK did not take it; `None` where it did, or where the format has no delegates.
    """

    op: str
    module: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    macs: Count
    reason: str | None = None


class PteOperators(_Data, frozen=True, kw_only=True):
    """Of a `.pte`. nodes: by debug handle, before XNNPACK changed anything.

    delegates: of each delegate, in the order in which they are called, XNNPACK's nodes as (type, debug handle).
    kernels: debug handle of each instruction that calls a kernel of ExecuTorch's own.
    """

    nodes: dict[str, NodeEntry]
    delegates: tuple[tuple[tuple[str, int], ...], ...]
    kernels: dict[str, int]


class OnnxOperators(_Data, frozen=True, kw_only=True):
    """Of an `.onnx`. nodes: by the node's name, in the file's order."""

    nodes: dict[str, NodeEntry]


class Operators(_Data, frozen=True, kw_only=True):
    """`operators.json`: for each format that a runtime can be profiled in."""

    schema_version: Literal[1] = SCHEMA_VERSION
    pte: PteOperators | None = None
    onnx: OnnxOperators | None = None


def encode_operators(found: Mapping[str, PteOperators | OnnxOperators]) -> bytes:
    """The file's bytes. `found`: by format."""
    whole = msgspec.convert({fmt: msgspec.to_builtins(item) for fmt, item in found.items()}, type=Operators)
    return msgspec.json.encode(whole) + b"\n"


def decode_operators(data: bytes, where: str) -> Operators:
    """The operators in `data`. FinetDeployError, naming `where`, when it is not such a file."""
    try:
        found: Operators = decode_json(data, Operators)
    except BadJson as error:
        raise FinetDeployError(
            f"not a list of operators: {error}", where=where, do="export the model again"
        ) from error
    return found


def count_normalization_ops(op_counts: Mapping[str, int]) -> int:
    """How many of the operators are normalizations (batch, layer, group, instance, rms)."""
    return sum(count for op, count in op_counts.items() if _NORMALIZATION.search(op))
