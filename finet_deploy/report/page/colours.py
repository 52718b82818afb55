"""The colours of page and pictures, in one place. Text on its background has a contrast of at least 4.5 (WCAG AA)."""

from __future__ import annotations

__all__ = ["DARK", "FONTS", "LIGHT", "SERIES", "page_css", "picture_css"]

# Series: after Okabe and Ito, whose colours people with colour blindness can tell apart; darker on white, lighter on
# black. Marks have shapes besides.
LIGHT = {
    "bg": "#f6f7f9",
    "surface": "#ffffff",
    "raised": "#eef1f5",
    "text": "#17202b",
    "muted": "#526070",
    "line": "#d5dbe3",
    "accent": "#0b62a8",
    "focus": "#0b62a8",
    "good": "#0a6b47",
    "good-bg": "#dff3ea",
    "bad": "#a32515",
    "bad-bg": "#fbe4df",
    "warn": "#7a4d00",
    "warn-bg": "#fdf0d3",
    "s0": "#0072b2",
    "s1": "#b45f06",
    "s2": "#00805c",
    "s3": "#a8458a",
    "s4": "#5a5fc7",
    "s5": "#7d6b00",
    "s6": "#c2371b",
    "s7": "#4b6475",
}
DARK = {
    "bg": "#0f141a",
    "surface": "#171e26",
    "raised": "#202a35",
    "text": "#e8edf3",
    "muted": "#a3b1c0",
    "line": "#334050",
    "accent": "#6cb8f0",
    "focus": "#8fcbf8",
    "good": "#72d6ab",
    "good-bg": "#123528",
    "bad": "#ff9f8c",
    "bad-bg": "#45201a",
    "warn": "#f2c063",
    "warn-bg": "#3d2f10",
    "s0": "#56b4e9",
    "s1": "#f0a030",
    "s2": "#3ecf9b",
    "s3": "#e38fc6",
    "s4": "#a5a9f7",
    "s5": "#e3d44c",
    "s6": "#ff8d6b",
    "s7": "#a9bccb",
}
SERIES = 8
FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"


def page_css() -> str:
    """The variables of both schemes, by the reader's system or by their choice, and the classes of the pictures."""
    light, dark = _variables(LIGHT), _variables(DARK)
    return (
        f":root{{color-scheme:light;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
        f"@media print{{:root:root:root{{color-scheme:light;{light}}}}}"
        f"{_classes({name: f'var(--{name})' for name in LIGHT})}"
    )


def picture_css() -> str:
    """The classes of a saved picture, with the light colours in them."""
    return f".paper{{fill:{LIGHT['surface']}}}{_classes(LIGHT)}"


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


def _classes(colours: dict[str, str]) -> str:
    """t: text, h: title, m: note, a: axis, g: grid, z: a line that others are read against, n: the noise floor's band,
    x: what went wrong; f0, l0, d0, i0, b0: fill, line, dots, interval and soft area of series 0."""
    text, muted, bad = colours["text"], colours["muted"], colours["bad"]
    halo = f"paint-order:stroke;stroke:{colours['surface']};stroke-width:3px;stroke-linejoin:round"
    rules = {
        "t": f"fill:{text};{halo}",
        "h": f"fill:{text};font-size:16px;font-weight:600",
        "m": f"fill:{muted};font-size:11px;{halo}",
        "a": f"fill:{muted};{halo}",
        "g": f"stroke:{colours['line']};stroke-width:1",
        "z": f"stroke:{muted};stroke-width:1;stroke-dasharray:4 3",
        "n": f"fill:{muted};fill-opacity:.16",
        "x": f"fill:none;stroke:{bad};stroke-width:2",
        "mid": f"stroke:{text};stroke-width:2",
        "box": f"stroke:{text};stroke-width:1",
    }
    for number in range(SERIES):
        colour = colours[f"s{number}"]
        rules |= {
            f"f{number}": f"fill:{colour}",
            f"l{number}": f"fill:none;stroke:{colour};stroke-width:1.5;stroke-linejoin:round",
            f"d{number}": f"fill:none;stroke:{colour};stroke-width:7;stroke-linecap:round",
            f"i{number}": f"stroke:{colour};stroke-width:2",
            f"b{number}": f"fill:{colour};fill-opacity:.3",
        }
    return f".plot text{{font-family:{FONTS};font-size:12px}}" + "".join(
        f".plot .{name}{{{rule}}}" for name, rule in rules.items()
    )
