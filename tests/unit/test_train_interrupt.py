"""Signals during training: the first is kept for later, the second Ctrl-C is not, and the handlers come back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from finet_deploy.train.interrupt import Interrupt


class Reached(Exception):
    """The handler that was there before was called."""


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A shell starts its background jobs with SIGINT ignored, and ignored it would stay."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def number(request: pytest.FixtureRequest):
    """A signal with a handler of the surroundings, which raises `Reached`."""

    def handler(found: int, _frame: object) -> None:
        raise Reached(found)

    previous = signal.signal(request.param, handler)
    yield request.param
    signal.signal(request.param, previous)


def test_the_first_signal_is_noted_and_not_obeyed(number: signal.Signals) -> None:
    with Interrupt() as interrupt:
        assert interrupt.requested == 0
        os.kill(os.getpid(), number)
        assert interrupt.requested == number
    with pytest.raises(Reached):
        os.kill(os.getpid(), number)


def test_obeying_does_what_the_handler_before_would_have_done(number: signal.Signals) -> None:
    with Interrupt() as interrupt, pytest.raises(Reached) as caught:
        interrupt.obey(number)
    assert caught.value.args == (number,)


def test_a_handler_that_lets_us_live_does_not_let_us_train_on() -> None:
    previous = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt):
            interrupt.obey(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_a_second_ctrl_c_aborts_at_once_and_a_second_sigterm_waits() -> None:
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)  # where the handler runs at the latest


def test_an_ignored_signal_stays_ignored() -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.requested == 0
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_an_error_puts_the_handlers_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(ZeroDivisionError), Interrupt():
        assert signal.getsignal(number) is not before
        raise ZeroDivisionError
    assert signal.getsignal(number) is before


def test_a_forked_reader_leaves_signals_to_the_training_process() -> None:
    with Interrupt() as interrupt:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(7 + interrupt.requested)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert interrupt.requested == 0


def test_outside_the_main_thread_it_does_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with Interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
