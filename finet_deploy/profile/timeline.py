"""What the native runner wrote about a profiled visit, as operators with exact bounds.

XNNPACK tells whole microseconds, from one operator's end to the next; ONNX Runtime tells whole microseconds too, and
writes shapes as text inside them. The runner has every reading of the clock that they took, so the bounds are those
readings, found by their place in the sequence and checked against what the runtime told.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from finet_deploy.errors import FinetDeployError
from finet_deploy.json_files import BadJson, decode_json

__all__ = ["Call", "Operator", "Timeline", "read_timeline"]

SCHEMA_VERSION = 1
SECOND = 1_000_000_000
STREAM_BEGIN, STREAM_END = -1, -2  # android_app/native/src/clock.h
EXECUTE, DELEGATE, KERNEL = "Method::execute", "DELEGATE_CALL", "OPERATOR_CALL"
COPY = "Copy"
COPIED = (2, 1, *range(3, 33))  # tensors that one operator puts together: most often two
NATIVE_CALL = "native_call_"
INPUTS = "ExecuTorch: takes the input, before its method starts"
SET_UP = "XNNPACK: shapes and pointers, before its first operator"
# What else ONNX Runtime tells, of memory in use, is another figure in every process.
DETAILS = ("op_name", "input_type_shape", "output_type_shape", "parameter_size")
MODEL_RUN, KERNEL_TIME = "model_run", "_kernel_time"


class Operator(NamedTuple):
    """One step of an inference. name: as the runtime calls it. type: what it does, in the runtime's words.

    place: `delegate` (XNNPACK), `kernel` (of the runtime's own), or `runtime` for a step that is no operator.
    instruction: of the ExecuTorch program, -1 in ONNX Runtime. details: what ONNX Runtime says of shapes, or nothing.
    """

    name: str
    type: str
    place: Literal["delegate", "kernel", "runtime"]
    instruction: int
    details: dict[str, Any]


class Call(NamedTuple):
    """One inference: begin and end, and those of each operator, in ns of the clock that the runner used."""

    begin: int
    end: int
    bounds: tuple[tuple[int, int], ...]


class Timeline(NamedTuple):
    """The operators in the order in which they run, and the calls in which every one of them could be placed."""

    operators: tuple[Operator, ...]
    calls: tuple[Call, ...]
    left_out: int


class _Kind(msgspec.Struct, frozen=True):
    name: str
    in_delegate: bool
    instruction: int
    details: dict[str, Any] | None


class _Reading(NamedTuple):
    clock: int
    ns: int


class _Span(NamedTuple):
    kind: int
    begin: int
    end: int


class _Profile(msgspec.Struct, frozen=True):
    schema_version: int
    virtual_clock: bool
    unit_ns: int
    origin_ns: int
    kinds: tuple[_Kind, ...]
    spans: tuple[_Span, ...]
    calls_ns: tuple[tuple[int, int], ...]
    readings: tuple[_Reading, ...]


class _Unplaced(Exception):
    """The readings of this call do not fit what the runtime told."""


def read_timeline(data: bytes, runtime: str, where: str) -> Timeline:
    """The timeline in the runner's profile. `where` names it in errors.

    A call whose readings do not fit what the runtime told is left out and counted; FinetDeployError when more than
    half are, or when the data is no profile.
    """
    profile = _decode(data, where)
    executorch = runtime == "executorch"
    groups = _by_end(profile) if executorch else _by_begin(profile)
    places: dict[int, int] = {}
    for i, reading in enumerate(profile.readings):
        places.setdefault(reading.ns, i)
    placed: list[Call] = []
    operators: tuple[Operator, ...] | None = None
    for (begin, end), spans in zip(profile.calls_ns, groups[-len(profile.calls_ns) :]):
        # Two clocks are read: what was read within a call is told by place, not by value.
        inside = profile.readings[places.get(begin, 0) + 1 : places.get(end, 0)]
        try:
            seen, bounds = (_executorch if executorch else _onnxruntime)(profile, spans, inside, begin)
        except _Unplaced:
            continue
        operators = seen if operators is None else operators
        if seen == operators:
            placed.append(Call(begin, end, bounds))
    left_out = len(profile.calls_ns) - len(placed)
    if operators is None or 2 * left_out > len(profile.calls_ns):
        found = f"{left_out} of {len(profile.calls_ns)} calls do not fit the readings of the clock"
        do = "report this: the runtime tells other times than it took"
        raise FinetDeployError(found, where=where, do=do)
    return Timeline(operators, tuple(placed), left_out)


def _decode(data: bytes, where: str) -> _Profile:
    try:
        profile: _Profile = decode_json(data, _Profile)
    except BadJson as error:
        raise FinetDeployError(f"not a runner's profile: {error}", where=where, do="profile again") from error
    if profile.schema_version != SCHEMA_VERSION:
        found = f"profile of schema_version {profile.schema_version}, this program reads {SCHEMA_VERSION}"
        raise FinetDeployError(found, where=where, do="build the runner again")
    if any(not 0 <= span.kind < len(profile.kinds) for span in profile.spans) or not profile.calls_ns:
        raise FinetDeployError("the profile is not whole", where=where, do="profile again")
    return profile


def _by_end(profile: _Profile) -> list[list[_Span]]:
    """ExecuTorch's spans of each call, in the order of their ends: that of the whole call is the last one."""
    groups: list[list[_Span]] = [[]]
    for span in profile.spans:
        groups[-1].append(span)
        if profile.kinds[span.kind].name == EXECUTE:
            groups.append([])
    return groups[:-1]


def _by_begin(profile: _Profile) -> list[list[_Span]]:
    """ONNX Runtime's spans of each call of the session, without that of the whole call, which begins first."""
    groups: list[list[_Span]] = []
    for span in sorted(profile.spans, key=lambda span: (span.begin, -span.end)):
        if profile.kinds[span.kind].name == MODEL_RUN:
            groups.append([])
        elif groups:
            groups[-1].append(span)
    return groups


def _executorch(
    profile: _Profile, spans: Sequence[_Span], readings: Sequence[_Reading], call_begin: int
) -> tuple[tuple[Operator, ...], tuple[tuple[int, int], ...]]:
    operators = [Operator("", INPUTS, "runtime", -1, {})]
    bounds = [(call_begin, spans[-1].begin)]
    told: list[_Span] = []
    kernel = ""
    for span in spans:
        kind = profile.kinds[span.kind]
        if kind.in_delegate:
            told.append(span)
        elif kind.name.startswith(NATIVE_CALL):
            kernel = kind.name.removeprefix(NATIVE_CALL)
        elif kind.name == KERNEL:
            operators.append(Operator(kernel or KERNEL, kernel or KERNEL, "kernel", kind.instruction, {}))
            bounds.append((span.begin, span.end))
            kernel = ""
        elif kind.name == DELEGATE:
            # XNNPACK reads the clock when it starts, and when each operator has ended; nobody does after that.
            within = [reading.ns for reading in readings if span.begin < reading.ns < span.end]
            edges = _edges(within, [(one.end - one.begin) // 1000 for one in told], _copies(profile, told))
            operators.append(Operator("", SET_UP, "runtime", kind.instruction, {}))
            bounds.append((span.begin, edges[0]))
            for i, one in enumerate(told):
                name = profile.kinds[one.kind].name
                operators.append(
                    Operator(name, re.sub(r" #\d+$", "", name), "delegate", kind.instruction, {})
                )
                bounds.append((edges[i], edges[i + 1]))
            told = []
    return tuple(operators), tuple(bounds)


def _copies(profile: _Profile, told: Sequence[_Span]) -> list[bool]:
    return [profile.kinds[one.kind].name.startswith(COPY) for one in told]


def _edges(readings: Sequence[int], lengths_us: Sequence[int], copies: Sequence[bool]) -> list[int]:
    """Where operators begin and end: the last readings, one more than there are operators, as far apart as was told.

    XNNPACK tells of putting n tensors together as one operator, and reads the clock after each tensor: then what was
    told is the sum. It works out seconds and nanoseconds apart: across a whole second its lengths are wrong, and not
    compared.
    """
    count = len(lengths_us)
    # At [n] tells of the last n operators: by the reading at which they begin, how many the first of them takes.
    taken: list[dict[int, int]] = [{len(readings) - 1: 0}]
    for i in reversed(range(count)):
        begins: dict[int, int] = {}
        for end in taken[-1]:
            for steps in COPIED if copies[i] else (1,):
                if end >= steps and _fits(readings[end - steps : end + 1], lengths_us[i]):
                    begins.setdefault(end - steps, steps)
        taken.append(begins)
    if not count or not taken[-1]:
        raise _Unplaced
    at = max(taken[-1])
    edges = [readings[at]]
    for n in reversed(range(1, count + 1)):
        at += taken[n][at]
        edges.append(readings[at])
    return edges


def _fits(readings: Sequence[int], length_us: int) -> bool:
    pairs = list(itertools.pairwise(readings))
    return (
        any(begin // SECOND != end // SECOND for begin, end in pairs)
        or sum((end - begin) // 1000 for begin, end in pairs) == length_us
    )


def _onnxruntime(
    profile: _Profile, spans: Sequence[_Span], readings: Sequence[_Reading], call_begin: int
) -> tuple[tuple[Operator, ...], tuple[tuple[int, int], ...]]:
    clock = [i for i, reading in enumerate(readings) if reading.clock >= 0]
    operators: list[Operator] = []
    bounds: list[tuple[int, int]] = []
    place = _first_node(profile, spans, [readings[i].ns for i in clock])
    for k, span in enumerate(spans):
        kind = profile.kinds[span.kind]
        details = {key: value for key, value in (kind.details or {}).items() if key in DETAILS}
        # Of a node that it made itself the runtime says another number in every process.
        name = re.sub(r"_token_\d+$", "", kind.name.removesuffix(KERNEL_TIME))
        operators.append(Operator(name, str(details.get("op_name", name)), "kernel", -1, details))
        bounds.append(_own_work(readings[clock[place + 2 * k] : clock[place + 2 * k + 1] + 1]))
    return tuple(operators), tuple(bounds)


def _first_node(profile: _Profile, nodes: Sequence[_Span], clock: Sequence[int]) -> int:
    """Where the readings begin of which two belong to each node, one before and one after it."""

    def fits(first: int) -> bool:
        for k, span in enumerate(nodes):
            begin, end = clock[first + 2 * k], clock[first + 2 * k + 1]
            if (begin - profile.origin_ns) // 1000 != span.begin or (
                end - begin
            ) // 1000 != span.end - span.begin:
                return False
        return True

    for first in range(len(clock) - 2 * len(nodes) + 1):
        if fits(first):
            return first
    raise _Unplaced


def _own_work(readings: Sequence[_Reading]) -> tuple[int, int]:
    """From the end of the text about the inputs to the begin of the one about the outputs."""
    marks = [reading.clock for reading in readings[1:-1]]
    if marks != [STREAM_BEGIN, STREAM_END, STREAM_BEGIN, STREAM_END]:
        raise _Unplaced
    return readings[2].ns, readings[3].ns
