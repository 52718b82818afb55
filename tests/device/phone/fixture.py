"""The simulated phone as a context manager."""

from __future__ import annotations

from types import TracebackType

from tests.device.phone.sandbox import Sandbox

__all__ = ["Phone"]


class Phone(Sandbox):
    """`with Phone("kirin980", auth="prompt", faults=[Fault("cut", when="^send:", after_bytes=5_000_000)]) as phone:`

    Leaving it fails when a host broke the protocol meanwhile (`expect_violations` for tests that do so on purpose).
    """

    expect_violations = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.expect_violations:
                violations = self.state()["violations"]
                assert not violations, f"the protocol was broken: {violations}"
        finally:
            super().__exit__(kind, error, trace)
