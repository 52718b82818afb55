"""What a fuse did: every fold, and every normalization that it left, with the reason."""

from __future__ import annotations

from typing import Any

import msgspec

from finet_deploy.errors import FinetDeployError

__all__ = ["Folded", "FuseReport", "Kept"]


class Folded(msgspec.Struct, frozen=True, kw_only=True):
    """`path`, a normalization, scalar or block of class (or kind) `kind`, became part of the layer at `into`.

    between: the modules (by path) and operations (by name) that stand between the two; their outputs change.
    """

    path: str
    kind: str
    into: str
    between: tuple[str, ...] = ()


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The normalization or scalar at `path` of class `kind` stays as it was, because of `reason`."""

    path: str
    kind: str
    reason: str


class FuseReport(msgspec.Struct, frozen=True, kw_only=True):
    """`folded` and `kept` in the model's own order; `left` counts the batch normalizations in the fused model.

    `rewritten`: blocks without any normalization left that took another spelling of the same function.
    `left` leaves out layers whose statistics come from the input (LayerNorm, GroupNorm): they are in `kept`, but
    there is nothing about them that could be folded.
    """

    folded: tuple[Folded, ...] = ()
    kept: tuple[Kept, ...] = ()
    left: int = 0
    rewritten: tuple[Folded, ...] = ()

    @property
    def normalization_left(self) -> int:
        """Batch normalizations that are still in the fused model."""
        return self.left

    def to_json_object(self) -> dict[str, Any]:
        """Plain dictionaries and lists, ready for a JSON encoder."""
        decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return decoded

    @classmethod
    def from_json_object(cls, value: object) -> FuseReport:
        """The inverse of `to_json_object`; raises FinetDeployError on anything else."""
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise FinetDeployError(f"not a fuse report: {error}", do="write the file again") from error
