"""The documentation: built strictly, self-contained, and with the figures and fields of the code and the results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docs import make
from finet_deploy.passes.names import PASS_NAMES
from finet_deploy.verify.certificate import Certificate, Check, InputSummary
from finet_deploy.verify.compare import InputComparison

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# What a browser fetches by itself; links that a reader clicks are not among them.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`mkdocs build --strict` of the project in `folder`."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class Fetches(HTMLParser):
    """The addresses that a page has the browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        value = dict(attrs).get(FETCHED.get(tag, ""))
        if value:
            self.found.append(value)


def test_the_pages_build_without_a_warning_and_fetch_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.glob("*.html"))
    assert {page.stem for page in pages} >= {path.stem for path in DOCS.glob("*.md")}
    for page in pages:
        parser = Fetches()
        parser.feed(page.read_text("utf-8"))
        assert parser.found
        for address in parser.found:
            assert not re.match(r"(\w+:)?//", address), f"{page.name}: {address}"
            if page.stem != "404":  # it is served from any folder: its addresses begin at the root
                assert (page.parent / address.partition("?")[0]).exists(), f"{page.name}: {address}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text("utf-8")), sheet.name


def test_the_specifications_are_on_their_pages(site: Path) -> None:
    assert "delegated_share" in (site / "bundle.html").read_text("utf-8")
    assert "stopped_by" in (site / "protocol.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[away](nowhere.md), [there](start.md#no-such-heading)", ("nowhere.md", "no-such-heading")),
        ('--8<-- "finet_deploy/absent.md"', ("absent.md",)),
    ],
)
def test_a_dead_link_a_dead_anchor_and_a_missing_part_fail_the_build(
    tmp_path: Path, text: str, told: tuple[str, ...]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text((ROOT / "mkdocs.yml").read_text().partition("\nnav:")[0])
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[start](start.md)\n")
    (tmp_path / "docs" / "start.md").write_text(f"# Start\n\n{text}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    problems = [
        line for line in done.stderr.splitlines() if line.startswith(("WARNING", "ERROR", "pymdownx"))
    ]
    for word in told:
        assert any(word in line for line in problems), done.stderr


@pytest.mark.parametrize("page", make.PAGES, ids=lambda page: page.name)
def test_figures_on_the_pages_are_those_of_the_results(page: Path) -> None:
    """When this fails: `python -m docs.make`, and read again what the page says of its figures."""
    text = page.read_text("utf-8")
    assert text.count("<!-- table: ") == text.count("<!-- end of table -->")
    assert make.with_tables(text) == text


def test_every_table_that_is_made_is_on_a_page() -> None:
    used = {name for page in make.PAGES for _, name, _ in make.MARK.findall(page.read_text("utf-8"))}
    assert used == set(make.TABLES)


def test_pictures_are_those_of_the_results() -> None:
    for path, svg in make.pictures().items():
        assert path.read_text("utf-8") == svg, path.name


def test_every_field_of_a_certificate_is_described_and_no_other() -> None:
    described: dict[str, list[str]] = {}
    section = ""
    tables = (DOCS / "certificate.md").read_text("utf-8").partition("## Fields of")[2]
    for line in tables.splitlines():
        if heading := re.match(r"### (\w+)", line):
            section = heading[1]
        elif field := re.match(r"\| `(\w+)` \| \S", line):
            described.setdefault(section, []).append(field[1])
    kinds = [Certificate, Check, InputComparison, InputSummary]
    assert described == {kind.__name__: list(kind.__struct_fields__) for kind in kinds}


def test_every_check_of_a_certificate_is_explained() -> None:
    from finet_deploy.verify.certify import _expected

    text = (DOCS / "certificate.md").read_text("utf-8")
    for name in _expected({"pte": None, "onnx": None, "ptl": None}):  # type: ignore[dict-item]
        stage, _, short = name.partition("/")
        assert f"`{name}`" in text or (f"`{stage}/" in text and f"`{short}`" in text), name


def test_every_deploy_pass_is_described_as_the_code_does() -> None:
    table = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", (DOCS / "passes.md").read_text("utf-8"), flags=re.M)
    assert dict(table) == PASS_NAMES
