"""`LABEL=BUNDLE` on the command line is read as it was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from finet_deploy.commands.labels import labelled_bundle


@pytest.mark.parametrize(
    ("text", "path", "label"),
    [
        ("net", "net", None),
        ("my net=net", "my net=net", None),  # there is a folder of this very name
        ("label=net", "net", "label"),
        ("G=4=net", "net", "G=4"),
        ("label=g=4", "g=4", "label"),
        ("g=4", "g=4", None),
        ("label=absent", "absent", "label"),
        ("a=b=absent", "b=absent", "a"),
        ("=net", "=net", None),
    ],
)
def test_a_label_is_what_stands_before_a_bundle(tmp_path, monkeypatch, text, path, label):
    monkeypatch.chdir(tmp_path)
    for name in ("net", "g=4", "my net=net"):
        (tmp_path / name).mkdir()
    assert labelled_bundle(text) == (Path(path), label)
