"""The protocol as JSON Schema, for runners in other languages: the Android app checks what it reads against it."""

from __future__ import annotations

import json

import msgspec

from finet_deploy.bench.protocol import RECORD_TYPES, Job, VisitRequest

__all__ = ["protocol_schema"]


def protocol_schema() -> str:
    """All structures below `$defs`, by name; fields in the order in which they are written. Ends with a newline."""
    _, definitions = msgspec.json.schema_components(
        [Job, VisitRequest, *RECORD_TYPES], ref_template="#/$defs/{name}"
    )
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions}
    return json.dumps(whole, indent=1) + "\n"
