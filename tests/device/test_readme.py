"""README and documentation tell the truth: their commands run, in their order, and print what they show."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from finet_deploy.bench.settings import load_suite
from tests.cli import run_cli
from tests.shared_bundles import table4_bundles

ROOT = Path(__file__).parents[2]
NAV = re.findall(r"^ +- .*: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
PAGES = [ROOT / "README.md", *(ROOT / "docs" / name for name in NAV)]
# A block with its language; one of `text` right below a program is what the program prints.
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", flags=re.MULTILINE | re.DOTALL)
EXACT = {"models"}  # commands whose every figure is the same everywhere


class Block(NamedTuple):
    """A fenced block of a page; shown: what the block below it says that it prints."""

    page: str
    kind: str
    body: str
    shown: str


BLOCKS = [Block(page.stem, *found) for page in PAGES for found in BLOCK.findall(page.read_text("utf-8"))]
RUN = [block for block in BLOCKS if block.kind in ("console", "python")]


def words(text: str) -> list[str]:
    """Lines without their spacing."""
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]


def masked(text: str) -> list[str]:
    """Lines without figures, spacing, torch's build and the name of the worst input: the same in every run."""
    text = re.sub(r"on input \w+", "on input *", text)
    text = re.sub(r"\+(cpu|cu\d+)", "", text)
    return words(re.sub(r"[-+]?\d[\d.,e+-]*", "#", text))


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


@pytest.mark.parametrize("block", RUN, ids=[f"{b.page}: {b.body.splitlines()[0][:50]}" for b in RUN])
def test_each_block_runs_and_prints_what_it_shows(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    block: Block,
) -> None:
    """In this process: another one would import torch and the exporters for each block, ten seconds a time."""
    monkeypatch.chdir(folder)
    if block.kind == "python":
        capsys.readouterr()
        exec(compile(block.body, f"{block.page}.md", "exec"), {"__name__": "__main__"})  # noqa: S102
        _compare(block.shown, capsys.readouterr().out, masked)
        return
    line, _, shown = block.body.partition("\n")
    program, *arguments = shlex.split(line.removeprefix("$ "))
    assert program == "finet-deploy"
    if "table4" in arguments:
        # 18 visits instead of 63; `demo`'s rounds and A/A row are in the other block of `bench`
        arguments = ["smoke" if word == "demo" else word for word in arguments]
        give_bundles(folder, tmp_path_factory)
    status, out, err = run_cli(capsys, *arguments)
    assert status == 0, err
    assert words(shown)
    _compare(shown, out + err, words if arguments[0] in EXACT else masked)


def _compare(shown: str, printed: str, form: Callable[[str], list[str]]) -> None:
    """Every line that is shown is printed, but rows of figures: verdicts and notes follow the machine's."""
    stable = [text for text in form(shown) if text and text != "..." and text[0] not in "|*["]
    assert stable or not shown
    assert [text for text in stable if text not in set(form(printed))] == []


def test_the_documents_show_each_command_and_the_make_targets() -> None:
    from finet_deploy.cli import COMMANDS

    # These need a phone, a cross compiler, an emulator, two runs or a branch to compare with: their own tests run them.
    elsewhere = {"app", "compare", "devices", "guard", "runner", "cost", "profile"}
    shown = {shlex.split(block.body.splitlines()[0])[2] for block in RUN if block.kind == "console"}
    assert shown == set(COMMANDS) - elsewhere
    told = {
        word
        for block in BLOCKS
        for word in re.findall(r"^finet-deploy (\w+)", block.body, flags=re.MULTILINE)
    }
    assert elsewhere <= told
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(
        r"^make ([\w-]+)|`make ([\w-]+)`", (ROOT / "README.md").read_text(), flags=re.MULTILINE
    ):
        target = "".join(target)
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_make_demo_is_the_command_that_the_readme_shows() -> None:
    (demo,) = re.findall(r"\$\(BIN\)/(finet-deploy bench .*)", (ROOT / "Makefile").read_text())
    assert any(block.body.startswith(f"$ {demo}") for block in RUN)


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("results/*.md"),
        *ROOT.glob("models/*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
