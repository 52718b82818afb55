"""What the Android app's Java is given of this package: structures as JSON Schema, presets and limits as data.

The files are kept in the app's sources, and a test compares them. After a change here:
`python -m finet_deploy.bench.app_resources android_app`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from finet_deploy.bench.json_schema import json_schema, protocol_schema
from finet_deploy.bench.plan import CHECKED_INPUTS
from finet_deploy.bench.settings import load_preset, preset_names
from finet_deploy.export.schema import READABLE_VERSIONS, Manifest
from finet_deploy.files import atomic_write_bytes
from finet_deploy.verify.certificate import CONDITIONING, Certificate
from finet_deploy.verify.certificate import SCHEMA_VERSION as CERTIFICATE_VERSION
from finet_deploy.verify.limits import LOWER, Limits

__all__ = ["app_resources"]

FOLDER = "core/src/main/resources/org/finetdeploy/core"


def app_resources() -> dict[str, str]:
    """Path in the app's sources -> text, with a newline at its end."""
    return {
        f"{FOLDER}/protocol/protocol.schema.json": protocol_schema(),
        f"{FOLDER}/protocol/bundle.schema.json": json_schema(Manifest, Certificate),
        f"{FOLDER}/plan/planning.json": _planning(),
    }


def _planning() -> str:
    """What `bench.plan` decides by: presets, how many golden inputs are checked, how close outputs must be."""
    limits = Limits()
    data = {
        "presets": {name: msgspec.to_builtins(load_preset(name)) for name in preset_names()},
        "checked_inputs": CHECKED_INPUTS,
        "manifest_versions": list(READABLE_VERSIONS),
        "certificate_versions": [CERTIFICATE_VERSION],
        "limits": {
            "artifact": limits.artifact,
            "fp32": limits.fp32,
            "fp32_multiple": limits.fp32_multiple,
            "lower_multiple": limits.lower_multiple,
            "lower_floors": {dtype: limits.lower_floor(dtype) for dtype in LOWER},
            "conditioning_check": CONDITIONING,
        },
    }
    return json.dumps(data, indent=1) + "\n"


if __name__ == "__main__":
    for name, text in app_resources().items():
        atomic_write_bytes(Path(sys.argv[1]) / name, text.encode())
