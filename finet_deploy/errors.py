"""Errors that a person reads: one line that says what was found, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["FinetDeployError", "UsageError", "suggest"]


class FinetDeployError(Exception):
    """Something that the user can act on. The command line prints it without a traceback and exits 1.

    message: what was found. where: the file, dotted module or option. do: the next step.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, do: str | None = None) -> None:
        self.message, self.where, self.do = message, where, do
        text = message if where is None else f"{message} [{where}]"
        if do is not None:
            text = f"{text}; {do}"
        super().__init__(" ".join(text.split()))


class UsageError(FinetDeployError, ValueError):
    """The call itself is wrong: an unknown name, an impossible option. The command line exits 2."""

    exit_code = 2


def suggest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """`did you mean 'a', 'b'?`, or an empty string when nothing known is near `name`."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.5)
    if not near:
        return ""
    return "did you mean " + ", ".join(repr(lowered[item]) for item in near) + "?"
