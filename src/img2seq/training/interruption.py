"""Ctrl-C and SIGTERM: the first asks for an end after the step, the second ends at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupted(Exception):
    """Training was asked to stop; the step was finished and all was saved."""

    def __init__(self, exit_code: int, message: str):
        super().__init__(message)
        self.exit_code = exit_code
        self.already_reported = False  # by another process of the same run


@contextlib.contextmanager
def first_signal_to(ask: Callable[[int], None], *, others_may_end_us: bool) -> Iterator[None]:
    """Give the number of the first SIGINT or SIGTERM to `ask`, and let the second act at once.

    Args:
        ask: called in a signal handler.
        others_may_end_us: torchrun ends the processes that remain when one has failed; they are to say why first.
    """
    signals = (signal.SIGINT, signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        for caught in signals:
            signal.signal(caught, signal.SIG_DFL)
        ask(number)

    try:
        before = {number: signal.signal(number, handle) for number in signals}
    except ValueError:  # not the main thread: whoever runs us handles signals
        yield
        return
    try:
        yield
    except BaseException:
        if others_may_end_us:
            before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
