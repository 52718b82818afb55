"""The real worker around a pretended runtime, with faults to order: `python runner.py FAULT REQUEST RECORDS`.

The pretended network's output is the golden output, found again by the input. Faults strike while runs are timed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
from safetensors.numpy import load_file

from finet_deploy.bench.protocol import VisitRequest
from finet_deploy.devices import worker

FAULTS = {
    "none": lambda: None,
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "out_of_memory": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(3600),
    "exit": lambda: os._exit(7),
    "raise": lambda: (_ for _ in ()).throw(RuntimeError("first line\nsecond line")),
}


def main() -> int:
    fault, request_path, records_path = sys.argv[1:]
    request = msgspec.json.decode(Path(request_path).read_bytes(), type=VisitRequest)
    tensors = load_file(request.golden_path)
    known = {
        tensors[f"input.{n}"].tobytes(): tensors[f"output.{n}"] for n in request.row.golden.output_limits
    }
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.0005)
        if calls > 1 + request.settings.warmup_min_runs:
            FAULTS.get(fault, FAULTS["none"])()

    def run(x: np.ndarray) -> np.ndarray:
        y = known[x.tobytes()]
        return y * (1.001 if fault == "wrong" else np.nan if fault == "nan" else 1)

    def open_session(path: Path, fmt: str, *, threads: int) -> SimpleNamespace:
        runtime = {"onnx": "onnxruntime", "pte": "executorch"}[fmt]
        effective = threads + (fault == "threads")
        return SimpleNamespace(runtime=runtime, version="0", threads=effective, bind=lambda x: call, run=run)

    if fault == "silent":
        return 0
    if fault == "garbage":
        Path(records_path).write_bytes(b"\x00\xff garbage\n" * 3)
        return 0
    if fault == "noise":
        sys.stderr.write("x" * 200_000 + "last words\n")
        return 9
    if fault == "other_visit":
        request = msgspec.structs.replace(request, visit=msgspec.structs.replace(request.visit, index=8))
        Path(request_path).write_bytes(msgspec.json.encode(request))
    if fault == "grandchild":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        Path(request.artifact_path).with_name("grandchild.pid").write_text(str(child.pid))
        time.sleep(3600)
    worker.open_session = open_session
    worker.import_runtime = lambda fmt: None
    return worker.main([request_path, records_path])


if __name__ == "__main__":
    sys.exit(main())
