"""What it costs when a fused Finet is cut into delegates: the same network and weights, Squeeze-Excite spelled twice.

    python tests/benchmarks/delegate_cost.py [--core cortex-a53 --core cortex-a76] [-o results/cost/delegates]

`fuse` rewrites Squeeze-Excite from linear layers on an (N, C) average to 1x1 convolutions on an (N, C, 1, 1) one. Here
Finet-large is also exported with that rewriting switched off; everything else is the same. Both are counted under
emulation: a cost, not a speed. Exit status 1 when the one delegate is not the cheaper.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from torch import nn

from finet_deploy.export import export
from finet_deploy.images import default_images, preprocessing_for
from finet_deploy.runner.cost import measure_cost, render_markdown, write_tables
from finet_deploy.untrained import prepare_untrained
from finet_deploy.zoo import create_model

REWRITING = "finet_deploy.fuse.engine.to_deploy_forms"
ONE, MANY = "Squeeze-Excite as 1x1 convolutions", "Squeeze-Excite as linear layers"


def export_both(model: nn.Module, folder: Path) -> list[tuple[Path, str]]:
    """Two bundles of one network, and their labels."""
    preprocessing = preprocessing_for(model.model_config, model)
    del model.model_config  # the exporter refuses a Finet of its own in more than one delegate, rightly
    for path, rewriting in ((folder / "one", True), (folder / "many", False)):
        arguments = {"formats": ("pte",), "preprocessing": preprocessing, "name": f"Finet-large, {path.name}"}
        if rewriting:
            export(model, path, **arguments)
        else:
            with patch(REWRITING, lambda fused: (fused, ())):
                export(model, path, **arguments)
    return [(folder / "one", ONE), (folder / "many", MANY)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--core", action="append", dest="cores")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    model = create_model("finet_large", num_groups=4, se=True, seed=0)
    prepare_untrained(model, default_images(24, preprocessing_for(model.model_config, model)))
    with tempfile.TemporaryDirectory() as name:
        bundles = export_both(model, Path(name))
        table = measure_cost(bundles, cores=options.cores or ["cortex-a53", "cortex-a76"])
    print(render_markdown(table))
    if options.output is not None:
        write_tables(table, options.output)
    counts = {(row.core, row.label): row.instructions for row in table.rows}
    cheaper = [counts[core, ONE] < counts[core, MANY] for core, label in counts if label == ONE]
    return 0 if all(cheaper) else 1


if __name__ == "__main__":
    sys.exit(main())
