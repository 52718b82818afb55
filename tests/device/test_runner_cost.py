"""Counting: the classes are the architecture's, the same command gives the same count, a lost delegate shows."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from finet_deploy.commands.cost import command
from finet_deploy.errors import FinetDeployError
from finet_deploy.runner.cost import measure_cost
from finet_deploy.runner.counting import CLASSES, build_plugin
from finet_deploy.runner.emulate import find_qemu
from finet_deploy.runner.folder import native_sources
from tests.device.runner_native import export_tiny, folder_or_skip, shared_tiny

ASSEMBLER = "aarch64-linux-gnu-gcc"
OBJCOPY = "aarch64-linux-gnu-objcopy"
EXAMPLES = {
    "fma": """
        fmla v0.4s, v1.4s, v2.4s | fmls v0.2d, v1.2d, v2.2d | fmla v0.2s, v1.2s, v2.2s | fmla v3.4s, v4.4s, v5.s[3]
        fmls v3.4s, v4.4s, v31.s[1] | fmla v3.2d, v4.2d, v5.d[1] | fmla v0.8h, v1.8h, v2.8h
        fmls v0.4h, v1.4h, v2.4h | fmla v0.8h, v1.8h, v2.h[7] | fmls v0.8h, v1.8h, v2.h[0]""",
    "dot": """
        sdot v0.4s, v1.16b, v2.16b | udot v0.2s, v1.8b, v2.8b | sdot v0.4s, v1.16b, v2.4b[3]
        udot v0.4s, v1.16b, v31.4b[0] | usdot v0.4s, v1.16b, v2.16b | usdot v0.4s, v1.16b, v2.4b[1]
        sudot v0.4s, v1.16b, v2.4b[2] | smmla v0.4s, v1.16b, v2.16b | ummla v0.4s, v1.16b, v2.16b
        usmmla v0.4s, v1.16b, v2.16b | bfmmla v0.4s, v1.8h, v2.8h | bfdot v0.4s, v1.8h, v2.8h
        bfdot v0.4s, v1.8h, v2.2h[1]""",
    "simd": """
        fadd v0.4s, v1.4s, v2.4s | fmul v0.4s, v1.4s, v2.s[0] | fmadd s0, s1, s2, s3 | fmax v0.4s, v1.4s, v2.4s
        mla v0.4s, v1.4s, v2.4s | smlal v0.4s, v1.4h, v2.4h | dup v0.4s, v1.s[0] | fmov s0, w1 | scvtf s0, w1
        sqadd v0.8h, v1.8h, v2.8h | uqadd v0.4h, v1.4h, v2.4h | fcadd v0.8h, v1.8h, v2.8h, #90
        zip1 v0.4s, v1.4s, v2.4s
        fcmla v0.4s, v1.4s, v2.4s, #90 | aese v0.16b, v1.16b | sqdmulh v0.4s, v1.4s, v2.4s | movi v0.4s, #0""",
    "load": """
        ldr x0, [x1] | ldr w0, [x1, x2, lsl #2] | ldrb w0, [x1, #3] | ldrsw x0, [x1] | ldrsh x0, [x1] | ldrsb w0, [x1]
        ldp x0, x1, [sp], #16 | ldp q0, q1, [x2] | ldr q0, [x1] | ldr s0, [x1, #4]! | ld1 {v0.4s, v1.4s}, [x0]
        ld1r {v0.4s}, [x0] | ld1 {v0.s}[1], [x0] | ld4 {v0.4s-v3.4s}, [x0], #64 | ldr x0, label | ldr d0, label
        ldxr x0, [x1] | ldaxr w0, [x1] | ldar x0, [x1] | ldapr x0, [x1] | ldadd x0, x1, [x2] | ldaddal w0, w1, [x2]
        ldadda x0, x1, [x2] | swp x0, x1, [x2] | cas x0, x1, [x2] | casal x0, x1, [x2] | ldur x0, [x1, #-3]
        ldapur x0, [x1] | ldnp x0, x1, [x2] | ldtr x0, [x1] | ldrsw x0, label""",
    "store": """
        str x0, [x1] | strb w0, [x1, #3] | strh w0, [x1, x2] | stp x0, x1, [sp, #-16]! | stp q0, q1, [x2] | str q0, [x1]
        str s0, [x1, #4]! | str d0, [x1, x2, lsl #3] | st1 {v0.4s, v1.4s}, [x0] | st1 {v0.s}[1], [x0]
        st4 {v0.4s-v3.4s}, [x0], #64 | stur x0, [x1, #-3] | stlr x0, [x1] | stlur x0, [x1] | stxr w0, x1, [x2]
        stnp x0, x1, [x2] | sttr x0, [x1]""",
    "branch": """
        b label | bl label | b.ne label | cbz x0, label | tbnz w0, #3, label | br x0 | blr x0 | ret | svc #0 | nop
        hint #0x35 | mrs x0, tpidr_el0 | dmb ish | isb""",
    "integer": """
        add x0, x1, x2 | subs w0, w1, #3 | madd x0, x1, x2, x3 | mov x0, #1 | adrp x0, label | csel x0, x1, x2, ne
        ubfx x0, x1, #3, #4 | sdiv x0, x1, x2 | clz x0, x1 | eor x0, x1, x2, ror #3 | prfm pldl1keep, [x0]
        prfm pldl1keep, [x0, x1] | prfum pldl1keep, [x0, #-3] | prfm pldl1keep, label | crc32x w0, w1, x2""",
    "sve": """
        fmla z0.s, p0/m, z1.s, z2.s | ld1w {z0.s}, p0/z, [x0] | whilelt p0.s, x0, x1 | ptrue p0.s | cntw x0""",
}


def words_of(tmp_path: Path, lines: list[str]) -> list[int]:
    if shutil.which(ASSEMBLER) is None:
        pytest.skip(f"{ASSEMBLER} is not installed")
    source = "\n".join([".arch armv8.6-a+sve+bf16+i8mm+fp16+sha3+crypto", "label:", *lines, ""])
    (tmp_path / "a.s").write_text(source)
    subprocess.run([ASSEMBLER, "-c", "a.s", "-o", "a.o"], cwd=tmp_path, check=True)
    subprocess.run([OBJCOPY, "-O", "binary", "-j", ".text", "a.o", "a.bin"], cwd=tmp_path, check=True)
    data = (tmp_path / "a.bin").read_bytes()
    assert len(data) == 4 * len(lines)
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


@pytest.fixture(scope="session")
def classify(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    header = native_sources() / "plugin" / "classify.h"
    (folder / "c.c").write_text(
        f'#include "{header}"\nint f(uint32_t w) {{ return classify(w); }}\n'
        "const char *name(int c) { return class_names[c]; }\nint count(void) { return CLASS_COUNT; }\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", "c.c", "-o", "c.so"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "c.so"))
    library.name.restype = ctypes.c_char_p
    assert tuple(library.name(n).decode() for n in range(library.count())) == CLASSES
    return lambda word: library.name(library.f(ctypes.c_uint32(word))).decode()


@pytest.mark.parametrize("name", CLASSES)
def test_instructions_are_in_the_class_of_the_architecture(classify, tmp_path, name):
    lines = [part.strip() for line in EXAMPLES[name].splitlines() for part in line.split("|") if part.strip()]
    found = {line: classify(word) for line, word in zip(lines, words_of(tmp_path, lines))}
    assert found == dict.fromkeys(lines, name)


@pytest.fixture(scope="session")
def tools():
    folder_or_skip("aarch64")
    try:
        return find_qemu(), build_plugin()
    except FinetDeployError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def bundles(tools, tmp_path_factory):
    unfused = tmp_path_factory.mktemp("cost") / "unfused"
    return shared_tiny(tmp_path_factory), export_tiny(unfused, fuse_model=False)


def test_three_runs_give_the_same_count(bundles):
    tables = [measure_cost([(bundles[0], None)], cores=["cortex-a76"]) for _ in range(3)]
    assert len(tables[0].rows) == 2
    assert tables[0] == tables[1] == tables[2]


def test_the_multiply_adds_of_the_network_are_among_those_counted(bundles):
    """Four lanes an instruction: a quarter of the multiply-adds, less what is not vectorised."""
    for row in measure_cost([(bundles[0], None)], cores=["cortex-a76"]).rows:
        assert row.classes["fma"] >= 0.9 * row.macs / 4
        assert sum(row.classes.values()) == row.instructions
        assert row.output_error < 1e-6


def test_what_fusing_saves_and_what_an_older_core_costs_is_seen(bundles, capsys):
    arguments = [f"net={bundles[0]}", f"net={bundles[1]}", "--core", "cortex-a76", "--core", "cortex-a53"]
    command.main([*arguments, "--runtimes", "executorch", "--json", "-q"], standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    counts = {(row["core"], row["fused"]): row["instructions"] for row in document["rows"]}
    for core in ("cortex-a76", "cortex-a53"):
        assert counts[core, False] > 1.2 * counts[core, True]
    assert counts["cortex-a53", True] > counts["cortex-a76", True]
    assert document["emulated"] is True
    assert "not a speed" in document["note"]


def test_a_plugin_without_a_place_to_write_to_refuses(tools, tmp_path):
    (qemu, _), plugin = tools
    done = subprocess.run([qemu, "-plugin", str(plugin), "/bin/true"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "give out=FILE" in done.stderr
