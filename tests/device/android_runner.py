"""What a phone's runner does, by the real worker around a pretended runtime: REQUEST RECORDS [--outputs FILE].

The environment variable FAULT_FILE names a file with the fault to show: those of `tests/device/runner.py`, and `slow`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import load_file

from finet_deploy.bench.protocol import VisitRequest
from tests.device import runner


def main() -> int:
    request_path, records_path, *rest = sys.argv[1:]
    request = msgspec.json.decode(Path(request_path).read_bytes(), type=VisitRequest)
    outputs = rest[1] if rest[:1] == ["--outputs"] else None
    fault_file = Path(os.environ.get("FAULT_FILE", "/nonexistent"))
    fault = fault_file.read_text().strip() if fault_file.exists() else "none"
    if outputs is None and fault == "slow":
        time.sleep(3)
    if outputs is not None and not fault.startswith("golden-"):
        fault = "none"
    fault = fault.removeprefix("golden-")
    if outputs is not None:
        golden = load_file(request.golden_path)
        data, index = b"", []
        for key in sorted(golden):
            if key.startswith("output."):
                values = golden[key].astype("<f4") * (np.float32(1.001) if fault == "wrong" else 1)
                entry = {"name": key.removeprefix("output."), "shape": list(values.shape)}
                index.append({**entry, "offset": len(data), "bytes": values.nbytes})
                data += values.tobytes()
        if fault == "short":
            data = data[:-4]
        Path(outputs).write_bytes(data)
        whole = {"schema_version": 1, "dtype": "float32", "byte_order": "little", "outputs": index}
        Path(outputs + ".json").write_text(json.dumps(whole))
        fault = "none" if fault in ("wrong", "short") else fault
    sys.argv = ["runner", fault, request_path, records_path]
    return runner.main()


if __name__ == "__main__":
    sys.exit(main())
