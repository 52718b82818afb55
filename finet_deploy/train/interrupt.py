"""SIGTERM and Ctrl-C while training: remembered, and obeyed where the state can be saved."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, NoReturn

__all__ = ["Interrupt"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupt:
    """A context in which the first SIGTERM or SIGINT is only noted in `requested` (0: none so far).

    A second Ctrl-C raises KeyboardInterrupt at once. On the way out the handlers that were there are back; a signal
    that the surroundings ignore (`nohup`) stays ignored. Outside the main thread, where Python delivers no
    signals, the context does nothing.
    """

    def __init__(self) -> None:
        self.requested = 0
        self._owner = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_error: object) -> None:
        self._restore()

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return  # a forked data worker: the terminal signals it too, but it ends when the training ends it
        if self.requested and number == signal.SIGINT:
            self._restore()
            raise KeyboardInterrupt
        self.requested = self.requested or number

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def obey(self, number: int) -> NoReturn:
        """Do now what `number` would have done without us: the command's exit status (143, 130) comes from there."""
        self._restore()
        signal.raise_signal(number)
        raise KeyboardInterrupt  # whoever handled the signal let us live: training stops all the same
