"""Tables of counts: labelled as emulated everywhere, and nothing is counted for a call that cannot be meant."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.runner import emulate
from finet_deploy.runner.cost import (
    CostRow,
    CostTable,
    measure_cost,
    render_csv,
    render_markdown,
    write_tables,
)
from finet_deploy.runner.counting import CLASSES
from finet_deploy.runner.emulate import CORES, core, emulated_command, find_qemu, write_profile
from tests.unit.test_runner_folder import write_folder


def row(label="net", *, fused=True, runtime="executorch", delegates=1, core="cortex-a76", scale=1) -> CostRow:
    classes = {name: scale * 1_000_000 * (number + 1) for number, name in enumerate(CLASSES)}
    classes["sve"] = 0
    return CostRow(
        label=label,
        fused=fused,
        runtime=runtime,
        runtime_version="1",
        core=core,
        delegates=delegates,
        nodes_outside=0,
        macs=10_000_000,
        artifact_sha256="0" * 64,
        instructions=sum(classes.values()),
        classes=classes,
        output_error=1e-7,
    )


TABLE = CostTable(
    emulator="qemu",
    runner_key="k",
    rows=(
        row(),
        row(fused=False, delegates=18, scale=3),
        row(runtime="onnxruntime", delegates=None),
        row("a|b", core="cortex-a53"),
    ),
)


def test_every_table_says_that_it_is_emulated_and_no_speed(tmp_path):
    text = render_markdown(TABLE)
    assert "not a speed" in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(headings) == 3
    assert all("emulated" in line for line in headings)
    for path in write_tables(TABLE, tmp_path):
        assert "emulated" in path.read_text()
    assert json.loads((tmp_path / "cost.json").read_text())["emulated"] is True


def test_the_table_shows_what_a_delegate_too_many_costs_and_hides_empty_classes():
    lines = render_markdown(TABLE).splitlines()
    assert "| net | fused | 1 | 28.00 | 2.800 |" in "\n".join(lines)
    assert "| net | unfused | 18 | 84.00 | 8.400 |" in "\n".join(lines)
    assert "SVE" not in render_markdown(TABLE)
    table = msgspec.structs.replace(TABLE, rows=(row(), msgspec.structs.replace(row(), dtype="int8")))
    assert "| net | fused, int8 | 1 |" in render_markdown(table)
    assert [found["dtype"] for found in csv.DictReader(io.StringIO(render_csv(table)))] == ["float32", "int8"]
    assert "a\\|b" in render_markdown(TABLE)


def test_csv_keeps_whole_numbers_and_classes_sum_to_the_total():
    found = list(csv.DictReader(io.StringIO(render_csv(TABLE))))
    assert len(found) == len(TABLE.rows)
    for line in found:
        assert line["emulated"] == "true"
        assert sum(int(line[name]) for name in CLASSES) == int(line["instructions"])


def test_the_table_survives_json():
    assert msgspec.json.decode(msgspec.json.encode(TABLE), type=CostTable) == TABLE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cores": ["cortex-a75"]}, "did you mean"),
        ({"cores": ["cortex-a76"], "runtimes": ["torch_mobile"]}, "no instruction count for runtime"),
        ({"cores": []}, "nothing to count"),
    ],
)
def test_impossible_calls_are_usage_errors(arguments, message):
    with pytest.raises(UsageError, match=message):
        measure_cost([(Path("absent"), None)], **arguments)


def test_a_missing_emulator_names_its_package(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FinetDeployError, match="apt-get install qemu-user"):
        find_qemu()


@pytest.mark.parametrize("version", ["10.0.2", "8.2.0", "7.1.0", "nonsense"])
def test_another_emulator_than_the_one_that_counts_are_defined_for_is_refused(tmp_path, monkeypatch, version):
    fake = tmp_path / "qemu-aarch64"
    fake.write_text(f"#!/bin/sh\necho qemu-aarch64 version {version}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(emulate.shutil, "which", lambda name: str(fake))
    with pytest.raises(FinetDeployError, match=r"counts are defined for 7\.2"):
        find_qemu()


@pytest.mark.parametrize("name", CORES)
def test_a_profile_names_its_core_for_every_cpu(tmp_path, name):
    wanted = core(name)
    write_profile(wanted, tmp_path)
    text = (tmp_path / "proc/cpuinfo").read_text()
    assert text.count(f"CPU part\t: 0x{wanted.part:03x}") == 8
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("processor")] == [*"01234567"]
    for cpu in range(8):
        midr = int(
            (tmp_path / f"sys/devices/system/cpu/cpu{cpu}/regs/identification/midr_el1").read_text(), 16
        )
        assert midr >> 4 & 0xFFF == wanted.part
        assert midr >> 24 == 0x41
    assert (tmp_path / "sys/devices/system/cpu/possible").read_text() == "0-7\n"
    assert ("asimddp" in text) == (name not in ("cortex-a53", "cortex-a72"))


def test_the_emulated_command_starts_the_loader_itself_by_relative_names(tmp_path):
    folder = write_folder(tmp_path)
    command = emulated_command(
        folder, core("cortex-a53"), Path("phone"), plugin="./p.so", seen_as=Path("runner")
    )
    assert command[:5] == ["qemu-aarch64", "-L", "phone", "-cpu", "cortex-a53"]
    assert command[5:] == ["-plugin", "./p.so", "runner/lib/ld", "runner/bin/finet-runner"]
    assert str(tmp_path) in " ".join(emulated_command(folder, core("cortex-a53"), Path("phone")))
