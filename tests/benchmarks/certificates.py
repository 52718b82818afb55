"""Export every network that ships by name and write the figures of its certificate into `results/`.

    .venv/bin/python tests/benchmarks/certificates.py [results/]

Weights are seeded, not trained; each figure is the worst over eleven inputs (noise, images, photographs, extremes).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pandas as pd

from finet_deploy.export import Bundle, export
from finet_deploy.files import atomic_write_text
from finet_deploy.images import default_images, evaluation_inputs, preprocessing_for
from finet_deploy.names import ALIASES
from finet_deploy.report.markdown import render_table
from finet_deploy.untrained import prepare_untrained
from finet_deploy.zoo import create_model

NETWORKS: list[tuple[str, dict[str, object]]] = [
    *(
        (name, {"num_groups": g, "se": se})
        for name in ("finet_small", "finet_large")
        for g in (2, 4)
        for se in (False, True)
    ),
    ("finet_large", {"num_groups": 8}),
    ("finet_large", {"channels_per_group": 50}),
    ("finet_large", {"affine": False}),
    ("resnet18_fbn", {}),
    ("resnet50_fbn", {}),
    *((name, {}) for name in ALIASES),
]


def export_one(name: str, options: dict[str, object], folder: Path) -> Bundle:
    model = create_model(name, seed=0, **options)  # type: ignore[arg-type]
    pictures = default_images(24, preprocessing_for(model.model_config, model))
    prepare_untrained(model, pictures)
    return export(model, folder, inputs=evaluation_inputs(pictures[:4]))


def figures(bundle: Bundle) -> dict[str, object]:
    certificate, manifest = bundle.certificate(), bundle.manifest
    errors = {
        "fused, fp64": "algebra/fp64",
        "unfused, fp32": "conditioning/fp32",
        "fused, fp32": "fp32/no_worse",
        ".pte": "artifact/pte",
        ".onnx": "artifact/onnx",
        ".ptl": "artifact/ptl",
    }
    sqnr = [certificate.check(f"artifact/{fmt}").figures["min_sqnr_db"] for fmt in bundle.formats]
    pte = bundle.artifact("pte")
    return {
        "network": manifest.name,
        "params": manifest.params,
        "macs": manifest.macs,
        "folded": len(manifest.fuse_report["folded"]),
        "left": manifest.fuse_report["left"],
        **{label: certificate.check(check).figures["max_error"] for label, check in errors.items()},
        "lowest SQNR, dB": min(value for value in sqnr if isinstance(value, float)),
        "delegates": pte.delegates,
        "nodes outside": pte.nodes_outside,
        "verdict": "passed" if certificate.passed else "FAILED",
    }


def text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if value > 1 else f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, options) in enumerate(NETWORKS):
            rows.append(figures(export_one(name, options, Path(folder) / str(index))))
            print({key: text(value) for key, value in rows[-1].items()}, flush=True)
    frame = pd.DataFrame(rows)
    atomic_write_text(out / "certificates.csv", frame.to_csv(index=False))
    cells = [[text(value) for value in row.values()] for row in rows]
    table = render_table(list(frame.columns), cells)
    head = (__doc__ or "").splitlines()[-1]
    atomic_write_text(
        out / "certificates.md", f"# Certificates\n\n{head} Errors are norm-relative.\n\n{table}\n"
    )


if __name__ == "__main__":
    main()
