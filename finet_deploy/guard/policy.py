"""What a repository demands of its bundles, beyond what each bundle's own certificate states."""

from __future__ import annotations

from pathlib import Path

import msgspec

from finet_deploy.errors import UsageError
from finet_deploy.verify.limits import LOWER, Limits

__all__ = ["Policy"]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The demands. A bundle can only be held to more than its certificate says, never to less.

    allow_unfused: accept bundles that were exported with `--no-fuse`. An unfused file is right, and slow: nothing else
        would notice it.
    min_sqnr_db: least SQNR of files below fp32; None: that of `Limits`. Whoever exports can lower the limit that the
        certificate states (`export --min-sqnr`); a repository's limit is not lowered by an export.
    min_delegated_share: least share of a `.pte` file's operators inside of delegates, 0 to 1.
    checkpoints: where the weights must come from. Given some, every bundle must be made of one of them, unchanged.
    quick: hashes and certificate only; nothing is run.
    """

    allow_unfused: bool = False
    min_sqnr_db: float | None = None
    min_delegated_share: float = 0.0
    checkpoints: tuple[Path, ...] = ()
    quick: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_delegated_share <= 1.0:
            raise UsageError(f"a delegated share of {self.min_delegated_share} is not between 0 and 1")
        if self.min_sqnr_db is not None and not 0.0 < self.min_sqnr_db < float("inf"):
            raise UsageError(f"an SQNR of {self.min_sqnr_db} dB is no limit", do="give a positive number")
        for path in self.checkpoints:
            if not path.is_file():
                raise UsageError("no such checkpoint", where=str(path), do="check the path")

    def sqnr_floor(self, dtype: str) -> float | None:
        """Least SQNR of a file in `dtype`; None for fp32, which is held to a relative error instead."""
        if dtype not in LOWER:
            return None
        return Limits().sqnr_db(dtype) if self.min_sqnr_db is None else self.min_sqnr_db
