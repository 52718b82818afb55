"""The pictures of FBN's forms and of their memory, written by hand: text and boxes need no library."""

from __future__ import annotations

import functools
import math

from finet_deploy.report.svg import svg_text

__all__ = ["forms", "memory"]

# Okabe and Ito's palette, which people with colour blindness can tell apart.
TENSOR, WORK, SMALL, INK = "#56B4E9", "#F0F0F0", "#E69F00", "#222222"
_text = functools.partial(svg_text, size=13, fill=INK)
_label = functools.partial(svg_text, size=13, anchor="middle", fill=INK)
WIDTH = 860


def _page(height: int, title: str, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="sans-serif"><title>{title}</title>'
    )
    return (
        "\n".join([head, f'<rect width="{WIDTH}" height="{height}" fill="white"/>', *parts, "</svg>"]) + "\n"
    )


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {where} rx="3" fill="{fill}" stroke="{INK}" stroke-width="1"/>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    angle = math.atan2(y2 - y1, x2 - x1)
    tips = [(x2 - 8 * math.cos(angle + turn), y2 - 8 * math.sin(angle + turn)) for turn in (0.4, -0.4)]
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(x2, y2), *tips])
    line = f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{INK}"/>'
    return f'{line}<polygon points="{head}" fill="{INK}"/>'


def _tensor(x: float, y: float, height: float, parts: int = 1) -> list[str]:
    """Something as large as the input times height / 56, in `parts` groups."""
    each = height / parts
    return [_box(x, y + index * each, 34, each, TENSOR) for index in range(parts)]


def forms() -> str:
    """One layer with G = 4, three ways. Blue: what is as large as a feature map, and how large."""
    return _page(
        520,
        "Three forms of fine-grained batch normalization",
        [*_grouped(56), *_moments(320), *_fused(440)],
    )


def _grouped(top: int) -> list[str]:
    groups, each = 4, 50
    parts = [
        _text(20, top - 26, "1. As in the paper, for training: every partial sum is written out", size=15)
    ]
    parts += [_label(57, top + 160, "x"), *_tensor(40, top + 72, 64, groups)]
    for index in range(groups):
        y = top + index * each
        middle = y + 20
        parts += [_arrow(76, top + 80 + 16 * index, 128, middle), _box(130, y + 4, 90, 32, WORK)]
        parts += [
            _label(175, middle + 4, f"W{'₁₂₃₄'[index]} ∗ x{'₁₂₃₄'[index]}"),
            _arrow(222, middle, 268, middle),
        ]
        parts += [_box(270, y - 1, 34, 42, TENSOR), _arrow(306, middle, 352, middle)]
        parts += [_box(354, y + 4, 120, 32, WORK), _label(414, middle + 4, "batch norm")]
        parts += [_arrow(476, middle, 522, middle), _box(524, y - 1, 34, 42, TENSOR)]
        parts += [_arrow(560, middle, 640, top + 96)]
    parts += [_label(287, top + 218, "u: G × outputs"), _label(541, top + 218, "and again, normalized")]
    parts += [_box(642, top + 78, 50, 36, WORK), _label(667, top + 102, "Σ", size=18)]
    parts += [
        _arrow(694, top + 96, 738, top + 96),
        _box(740, top + 64, 34, 64, TENSOR),
        _label(757, top + 148, "y"),
    ]
    return parts


def _moments(top: int) -> list[str]:
    parts = [
        _text(
            20,
            top - 20,
            "2. Moment form, for training: the same output and gradients, one convolution",
            size=15,
        )
    ]
    parts += [*_tensor(40, top, 64, 4), _label(57, top + 84, "x")]
    parts += [_arrow(76, top + 18, 128, top + 18), _box(130, top, 240, 36, SMALL)]
    parts += [_label(250, top + 23, "m_g = E[x_g],  S_g = Cov[x_g]")]
    parts += [_arrow(372, top + 18, 398, top + 18), _box(400, top, 190, 36, SMALL)]
    parts += [_label(495, top + 23, "F_g = W_g · γ_g / σ_g")]
    parts += [
        _arrow(495, top + 36, 610, top + 52),
        _box(612, top + 34, 80, 36, WORK),
        _label(652, top + 57, "F ∗ x + b"),
    ]
    parts += [_arrow(76, top + 58, 610, top + 58), _arrow(694, top + 52, 738, top + 52)]
    return [*parts, _box(740, top + 6, 34, 64, TENSOR), _label(757, top + 88, "y")]


def _fused(top: int) -> list[str]:
    parts = [
        _text(
            20,
            top - 12,
            "3. Fused, for inference: the running statistics are folded once, in float64",
            size=15,
        )
    ]
    parts += [
        _box(40, top, 34, 64, TENSOR),
        _arrow(76, top + 32, 378, top + 32),
        _box(380, top + 14, 120, 36, WORK),
    ]
    parts += [_label(440, top + 37, "K ∗ x + b"), _arrow(502, top + 32, 738, top + 32)]
    return [*parts, _box(740, top, 34, 64, TENSOR)]


def memory(costs: list[dict[str, str]]) -> str:
    """Bytes that a training step keeps for backward, by G, over plain BN. costs: lines of cost_finet_large.csv."""
    found = {
        (row["groups"], row["variant"]): float(row["saved_ratio_to_bn"])
        for row in costs
        if row["groups"].isdigit() and row["saved_ratio_to_bn"]
    }
    columns = sorted({int(groups) for groups, _ in found})
    top, base, step, scale = 70, 330, 150, 46.0  # pixels; `scale` a unit of the ratio
    parts = [
        _text(20, 30, "Bytes kept for the backward pass, Finet-large, over plain batch norm", size=16),
        _box(20, 44, 14, 14, "#D55E00"), _text(40, 56, "the paper's form"),
        _box(180, 44, 14, 14, TENSOR), _text(200, 56, "moment form"),
    ]  # fmt: skip
    parts += [f'<line x1="40" x2="840" y1="{base}" y2="{base}" stroke="{INK}"/>']
    one = base - scale
    parts += [f'<line x1="40" x2="840" y1="{one:.1f}" y2="{one:.1f}" stroke="{INK}" stroke-dasharray="4 4"/>']
    parts += [_text(800, one - 6, "BN = 1", size=12)]
    for index, groups in enumerate(columns):
        x = 70 + index * step
        for shift, variant, fill in ((0, "grouped", "#D55E00"), (46, "moments", TENSOR)):
            value = found[str(groups), variant]
            height = min(value * scale, base - top)
            parts += [_box(x + shift, base - height, 40, height, fill)]
            parts += [_label(x + shift + 20, base - height + 16, f"{value:.2f}", size=12)]
        parts += [_label(x + 43, base + 20, f"G = {groups}")]
    return _page(364, "Memory of training with FBN, by the number of groups", parts)
