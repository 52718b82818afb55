"""Bundles of the base branch: taken out of git byte for byte, and nothing out of git is trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from finet_deploy.errors import FinetDeployError
from finet_deploy.guard.base import bundle_at, resolve_commit
from tests.example_repositories import commit_all, git

DATA = b"\x00\r\n\xff" * 100


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "r"
    (root / "bundles/a b").mkdir(parents=True)
    (root / "bundles/a b/model.onnx").write_bytes(DATA)
    (root / "bundles/a b/manifest.json").write_text("{}\n")
    (root / "bundles/a bc").mkdir()
    (root / "bundles/a bc/other").write_text("x")
    git(tmp_path, "init", "--quiet", "r")
    commit_all(root, "first")
    return root


def test_a_bundle_comes_out_as_it_was_committed_whatever_the_branch_changed(repository, tmp_path):
    git(repository, "checkout", "--quiet", "-b", "change")
    (repository / "bundles/a b/model.onnx").write_bytes(b"other")
    commit_all(repository, "second")
    commit = resolve_commit(repository, "main")
    found = bundle_at(repository, commit, "bundles/a b", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {
        "model.onnx": DATA,
        "manifest.json": b"{}\n",
    }
    assert (repository / "bundles/a b/model.onnx").read_bytes() == b"other"
    assert git(repository, "status", "--porcelain") == ""


def test_what_the_base_does_not_have_is_none(repository, tmp_path):
    commit = resolve_commit(repository, "main")
    assert bundle_at(repository, commit, "bundles/a", tmp_path / "out") is None


@pytest.mark.parametrize("name", ["nowhere", "--output=x", "$(touch pwned)", "main; touch pwned", ""])
def test_an_unknown_branch_says_what_to_fetch(repository, name):
    with pytest.raises(FinetDeployError, match="fetch-depth"):
        resolve_commit(repository, name)
    assert not list(repository.parent.rglob("pwned"))


def test_origins_branch_is_taken_before_a_stale_local_one(repository, tmp_path):
    git(tmp_path, "clone", "--quiet", "r", "clone")
    (repository / "new").write_text("x")
    commit_all(repository, "second")
    git(tmp_path / "clone", "fetch", "--quiet")
    assert resolve_commit(tmp_path / "clone", "main") == resolve_commit(repository, "main")


def test_links_and_pointers_of_large_files_are_refused_by_name(repository, tmp_path):
    (repository / "bundles/a b/link").symlink_to("/etc/passwd")
    commit_all(repository, "a link")
    with pytest.raises(FinetDeployError, match=r"no plain file.*a b/link"):
        bundle_at(repository, resolve_commit(repository, "main"), "bundles/a b", tmp_path / "out")
    (repository / "bundles/a b/link").unlink()
    (repository / "bundles/a b/model.onnx").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    commit_all(repository, "a pointer")
    with pytest.raises(FinetDeployError, match="git lfs fetch"):
        bundle_at(repository, resolve_commit(repository, "main"), "bundles/a b", tmp_path / "out2")


def test_a_folder_that_is_no_repository_is_one_readable_error(tmp_path):
    with pytest.raises(FinetDeployError, match="git ls-tree"):
        bundle_at(tmp_path, "0" * 40, "bundles/a", tmp_path / "out")
