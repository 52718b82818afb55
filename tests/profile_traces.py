"""Profiles as the native runner writes them, made up: operators of known lengths, as each runtime tells them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

MONOTONIC, REALTIME = 1, 0
STREAMS = (-1, -2, -1, -2)


class Writer:
    """A clock that a made-up runner reads; every reading is kept."""

    def __init__(self, start: int) -> None:
        self.now, self.readings = start, []
        self.kinds: list[dict[str, Any]] = []
        self.spans: list[list[int]] = []
        self.calls: list[list[int]] = []

    def read(self, passed: int, clock: int = MONOTONIC) -> int:
        self.now += passed
        self.readings.append([clock, self.now])
        return self.now

    def kind(self, name: str, in_delegate: bool, instruction: int, details: Any = None) -> int:
        entry = {"name": name, "in_delegate": in_delegate, "instruction": instruction, "details": details}
        if entry not in self.kinds:
            self.kinds.append(entry)
        return self.kinds.index(entry)

    def data(self, *, unit_ns: int = 1, origin_ns: int = 0) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "virtual_clock": False,
            "unit_ns": unit_ns,
            "origin_ns": origin_ns,
            "kinds": self.kinds,
            "spans": self.spans,
            "calls_ns": self.calls,
            "readings": self.readings,
        }


def copied(length: int, tensors: int) -> list[int]:
    """Tensors are put together: the clock is read after each."""
    part = length // (tensors + 1)
    return [part] * (tensors - 1) + [length - part * (tensors - 1)]


def executorch_call(
    writer: Writer, names: Sequence[str], lengths: Sequence[int], tensors: int = 2
) -> list[tuple[int, int]]:
    """One call with one delegate, XNNPACK's operators in it; returns their true bounds. tensors: of each copy."""
    begin = writer.read(1000)
    method, delegate = writer.read(50_000), writer.read(700)
    ticks = writer.read(90)  # XNNPACK's profiler: from here its lengths are strung together
    edge = writer.read(40_000)
    bounds = []
    for name, length in zip(names, lengths):
        told = 0
        start, parts = edge, copied(length, tensors) if name.startswith("Copy") else [length]
        for part in parts:
            end = writer.read(part)
            told += (end - edge) // 1000 * 1000
            edge = end
        bounds.append((start, edge))
        writer.spans.append([writer.kind(name, True, 0), ticks, ticks + told])
        ticks += told
    writer.spans.append([writer.kind("DELEGATE_CALL", False, 0), delegate, writer.read(30_000)])
    writer.spans.append([writer.kind("Method::execute", False, -1), method, writer.read(500)])
    writer.calls.append([begin, writer.read(800)])
    return bounds


def onnxruntime_call(
    writer: Writer, names: Sequence[str], lengths: Sequence[int], origin: int
) -> list[tuple[int, int]]:
    """One call of ONNX Runtime; returns the true bounds of its nodes' own work."""
    begin = writer.read(1000)
    run = writer.read(2000, REALTIME)
    bounds = []
    for name, length in zip(names, lengths):
        start = writer.read(3000, REALTIME)
        writer.read(150, STREAMS[0])
        own_begin = writer.read(9000, STREAMS[1])
        own_end = writer.read(length, STREAMS[2])
        writer.read(6000, STREAMS[3])
        stop = writer.read(11_000, REALTIME)
        kind = writer.kind(f"{name}_kernel_time", False, -1, {"op_name": "Conv"})
        first = (start - origin) // 1000
        writer.spans.append([kind, first, first + (stop - start) // 1000])
        bounds.append((own_begin, own_end))
    first = (run - origin) // 1000
    whole = writer.read(4000, REALTIME)
    writer.spans.append([writer.kind("model_run", False, -1), first, first + (whole - run) // 1000])
    writer.calls.append([begin, writer.read(900)])
    return bounds


def encode(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode()
