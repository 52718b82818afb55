"""What the calibration images make of every value: extremes and mean squares, channel by channel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

__all__ = ["Extremes", "observe"]


@dataclass
class Extremes:
    """Of one value over all images: (C,) lowest and highest."""

    low: Tensor
    high: Tensor

    @property
    def magnitude(self) -> Tensor:
        """(C,) the largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())


class _Observer(Interpreter):
    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.seen: dict[Node, Extremes] = {}

    def run_node(self, n: Node) -> Any:
        y = super().run_node(n)
        if n.op in ("call_function", "placeholder") and isinstance(y, Tensor) and y.ndim >= 2:
            channels = y.detach().transpose(0, 1).flatten(1)  # (C, N H W)
            low, high = channels.amin(1), channels.amax(1)
            if n in self.seen:
                low, high = (
                    torch.minimum(low, self.seen[n].low),
                    torch.maximum(high, self.seen[n].high),
                )
            self.seen[n] = Extremes(low, high)
        return y


def observe(graph: GraphModule, images: Iterable[Tensor]) -> dict[Node, Extremes]:
    """Run every image (3, H, W) through the graph. Value -> its extremes."""
    observer = _Observer(graph)
    with torch.no_grad():
        for image in images:
            observer.run(image[None])
    return observer.seen
