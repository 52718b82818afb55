"""The protocol as JSON Schema, for runners in other languages: the Android app checks what it reads against it."""

from __future__ import annotations

import json

import msgspec

from finet_deploy.bench.protocol import RECORD_TYPES, Job, VisitRequest

__all__ = ["json_schema", "protocol_schema"]


def protocol_schema() -> str:
    """The schema of jobs, requests and run records."""
    return json_schema(Job, VisitRequest, *RECORD_TYPES)


def json_schema(*structures: type[msgspec.Struct]) -> str:
    """These structures and all that they hold below `$defs`, by name; fields in the order in which they are written.

    Ends with a newline.
    """
    _, definitions = msgspec.json.schema_components(list(structures), ref_template="#/$defs/{name}")
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions}
    return json.dumps(whole, indent=1) + "\n"
