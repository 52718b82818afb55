"""A runner for the fault matrix: a shell script with the phases of a real one, which hands out prepared records.

It waits in the phase in which it shall be struck, so that no machine is too slow or too fast for it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import load_file

from finet_deploy.bench.protocol import Row, Visit, encode_record
from tests.bench_fakes import make_records

__all__ = ["CONTROL", "larger", "shell_runner"]

CONTROL = "/data/local/matrix"  # on the phone, but not in the storage that fills up
FILE_BYTES = 150_000
RECORDS_VISIT = 7777  # stands for the visit's number in the prepared records
# REQUEST RECORDS [--outputs FILE]
RUN = f"""#!/system/bin/sh
here=${{0%/*}}
visit=$(sed -n 's/.*"visit":{{"index":\\([0-9]*\\),.*/\\1/p' "$1")
some() {{ sed -n "$1s/\\"visit\\":{RECORDS_VISIT},/\\"visit\\":$visit,/p" "$here/records.jsonl"; }}
reach() {{
  echo "$1 $$" > {CONTROL}/now.tmp; mv {CONTROL}/now.tmp {CONTROL}/now
  n=0; while [ -e "{CONTROL}/hold.$1" ] || [ -e {CONTROL}/stay.$$ ] && [ $n -lt 1200 ]; do
    sleep 0.05; n=$((n+1))
  done
}}
some 1,3 > "$2.unfinished" || exit 1
if [ "$3" = --outputs ]; then
  reach equivalence
  cp "$here/outputs" "$4" && cp "$here/outputs.json" "$4.json" || exit 1
else
  reach warm-up
fi
some 4 >> "$2.unfinished" || exit 1
[ "$3" = --outputs ] || reach timing
some 5,6 >> "$2.unfinished" || exit 1
mv "$2.unfinished" "$2"
"""


def larger(row: Row, run: Path) -> Row:
    """The row with a file that takes a while to send."""
    data = np.random.default_rng(1).bytes(FILE_BYTES)
    run.mkdir()
    (run / row.bundle / row.artifact.file).write_bytes(data)
    artifact = msgspec.structs.replace(row.artifact, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    return msgspec.structs.replace(row, artifact=artifact)


def shell_runner(folder: Path, row: Row, bundle: Path) -> Path:
    """The runner's folder: `run.sh`, and beside it what it hands out."""
    folder.mkdir()
    (folder / "run.sh").write_text(RUN)
    visit = Visit(index=RECORDS_VISIT, round=0, position=0, row=row.id)
    records = make_records(visit, row, [1_000_000 + n for n in range(3000)])  # more than one block of a disk
    (folder / "records.jsonl").write_bytes(b"".join(map(encode_record, records)))
    data, index = b"", []
    for key, value in sorted(load_file(bundle / "golden.safetensors").items()):
        if key.startswith("output."):
            raw = value.astype(np.float32).tobytes()
            entry = {"name": key.removeprefix("output."), "shape": value.shape, "offset": len(data)}
            index.append({**entry, "bytes": len(raw)})
            data += raw
    (folder / "outputs").write_bytes(data)
    whole = {"schema_version": 1, "dtype": "float32", "byte_order": "little", "outputs": index}
    (folder / "outputs.json").write_text(json.dumps(whole))
    return folder
