"""The README tells the truth: its commands run, in its order, and print what it says that they print."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finet_deploy.bench.settings import load_suite
from tests.cli import run_cli
from tests.shared_bundles import table4_bundles

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
RUN = [(kind, body) for kind, body in BLOCKS if kind in ("console", "python")]


def masked(text: str) -> list[str]:
    """Lines without figures, spacing, torch's build and the name of the worst input: the same in every run."""
    text = re.sub(r"on input \w+", "on input *", text)
    text = re.sub(r"\+(cpu|cu\d+)", "", text)
    return [
        re.sub(r"\s+", " ", re.sub(r"[-+]?\d[\d.,e+-]*", "#", line)).strip() for line in text.splitlines()
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all blocks: later ones use the files of earlier ones, and the checkpoint that is shipped."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "models").symlink_to(ROOT / "models")
    return folder


def give_bundles(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Those of the suite, for small pictures. What `bench` makes itself: tests/export/test_suites.py."""
    shared = table4_bundles(tmp_path_factory)
    for row in load_suite("table4").rows:
        shutil.copytree(shared / row.name, folder / "bundles" / row.name, copy_function=os.link)


@pytest.mark.parametrize(("kind", "body"), RUN, ids=[body.splitlines()[0][:60] for _, body in RUN])
def test_each_block_of_the_readme_runs_and_prints_what_it_shows(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    body: str,
) -> None:
    """In this process: another one would import torch and the exporters for each block, ten seconds a time."""
    if kind == "python":
        subprocess.run([sys.executable, "-c", body], cwd=folder, check=True, capture_output=True)
        return
    line, _, shown = body.partition("\n")
    program, *arguments = shlex.split(line.removeprefix("$ "))
    assert program == "finet-deploy"
    if "table4" in arguments:
        # 18 visits instead of 63; `demo`'s rounds and A/A row are in the other block of `bench`
        arguments = ["smoke" if word == "demo" else word for word in arguments]
        give_bundles(folder, tmp_path_factory)
    monkeypatch.chdir(folder)
    status, out, err = run_cli(capsys, *arguments)
    assert status == 0, err
    printed = set(masked(out + err))
    # Rows of figures carry a verdict and intervals, which differ from machine to machine; notes follow the figures.
    stable = [text for text in masked(shown) if text and text != "..." and text[0] not in "|*["]
    assert stable
    assert [text for text in stable if text not in printed] == []


def test_the_readme_shows_each_command_and_both_make_targets() -> None:
    from finet_deploy.cli import COMMANDS

    # These need a phone, a cross compiler or an emulator: their own tests run them.
    elsewhere = {"app", "devices", "runner", "cost", "profile"}
    shown = {shlex.split(body.splitlines()[0])[2] for kind, body in RUN if kind == "console"}
    assert shown == set(COMMANDS) - elsewhere
    told = {
        word for _, body in BLOCKS for word in re.findall(r"^finet-deploy (\w+)", body, flags=re.MULTILINE)
    }
    assert elsewhere <= told
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_make_demo_is_the_command_that_the_readme_shows() -> None:
    (demo,) = re.findall(r"\$\(BIN\)/(finet-deploy bench .*)", (ROOT / "Makefile").read_text())
    assert any(body.startswith(f"$ {demo}") for _, body in RUN)


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("results/*.md"),
        *ROOT.glob("models/*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
