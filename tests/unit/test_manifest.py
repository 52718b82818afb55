"""The manifest's form is a promise: a committed one still parses and is written byte for byte as it was."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from finet_deploy.errors import FinetDeployError
from finet_deploy.export import schema
from finet_deploy.export.schema import decode_manifest, encode_manifest

DATA = Path(__file__).parents[1] / "data" / "export"
GOLDEN = DATA / "manifest_v2.json"
CONTRACT = Path(schema.__file__).with_name("README.md")


def test_the_committed_manifest_is_read_and_written_byte_for_byte() -> None:
    data = GOLDEN.read_bytes()
    manifest = decode_manifest(data, "golden")
    assert manifest.artifacts["pte"].delegates == 1
    assert manifest.preprocessing is not None
    assert manifest.preprocessing.crop == 64
    assert encode_manifest(manifest) == data
    assert manifest.quantization is not None
    assert manifest.quantization.layers[0].precision == "int8"


def test_a_manifest_from_before_quantization_is_read_as_one_without() -> None:
    manifest = decode_manifest((DATA / "manifest_v1.json").read_bytes(), "golden")
    assert manifest.schema_version == 1
    assert manifest.quantization is None
    assert manifest.artifacts["pte"].fp32_ops == {}


def test_a_manifest_of_version_1_is_read_as_written_before_passes_and_operators_were_recorded() -> None:
    older = decode_manifest((DATA / "manifest_v1.json").read_bytes(), "older")
    assert (older.schema_version, older.operators) == (1, None)
    assert [artifact.passes for artifact in older.artifacts.values()] == [None] * len(older.artifacts)
    newer = decode_manifest(GOLDEN.read_bytes(), "newer")
    assert newer.weights_sha256 == older.weights_sha256


@pytest.mark.parametrize("name", [name for name in schema.__all__ if name[0].isupper() and name[1].islower()])
def test_every_field_of_the_schema_is_described_in_the_contract(name: str) -> None:
    described = set(re.findall(r"^\| `(\w+)` \|", CONTRACT.read_text(), flags=re.MULTILINE))
    fields = set(getattr(schema, name).__struct_fields__)
    assert fields
    assert fields - described == set()


def test_the_contract_describes_no_field_that_does_not_exist() -> None:
    tables = CONTRACT.read_text().partition("## `manifest.json`")[2]
    described = set(re.findall(r"^\| `(\w+)` \|", tables, flags=re.MULTILINE))
    structs = [getattr(schema, name) for name in schema.__all__ if name[0].isupper() and name[1].islower()]
    assert described == {field for struct in structs for field in struct.__struct_fields__}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("artifacts", "pte", "sha256"), "not a hash"),
        (("artifacts", "pte", "bytes"), -1),
        (("artifacts", "pte", "delegated_share"), 1.5),
        (("artifacts",), {}),
        (("input", "shape"), [1]),
        (("golden", "inputs"), []),
        (("fused",), 1),
        (("schema_version",), True),
        (("preprocessing", "mean"), [0.5]),
    ],
)
def test_an_impossible_value_is_refused(path: tuple[str, ...], value: object) -> None:
    manifest = msgspec.json.decode(GOLDEN.read_bytes())
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(FinetDeployError, match="not a bundle's manifest.*here.json"):
        decode_manifest(msgspec.json.encode(manifest), "here.json")


def test_every_field_must_be_there() -> None:
    whole = msgspec.json.decode(GOLDEN.read_bytes())
    for field in ("name", "source", "artifacts", "golden", "certificate", "weights_sha256"):
        cut = {key: value for key, value in whole.items() if key != field}
        with pytest.raises(FinetDeployError, match=field):
            decode_manifest(msgspec.json.encode(cut), "here.json")
