"""A progress bar on a terminal, and silence everywhere else."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO

_REDRAW_SECONDS = 0.1


class Progress:
    """``with Progress(total, "sampling") as bar: … bar.update(done, "loss 0.4")``.

    Parameters
    ----------
    total : int
        What `update` counts up to.
    what : str
        Stands before the bar.
    enabled : bool
        False: draws nothing. True: draws if `stream` is a terminal.
    stream : file, optional
        None: standard error.
    """

    def __init__(self, total: int, what: str = "", *, enabled: bool = True, stream: TextIO | None = None) -> None:
        self.total = max(total, 1)
        self.what = what
        self._stream = sys.stderr if stream is None else stream
        self._on = enabled and self._stream is not None and not self._stream.closed and self._stream.isatty()
        self._begun = self._drawn = time.monotonic()
        self._shown = False

    def update(self, done: int, note: str = "") -> None:
        """Draw the bar for `done` of `total` (not more often than the eye can follow), and `note` behind it."""
        now = time.monotonic()
        if not self._on or (self._shown and now - self._drawn < _REDRAW_SECONDS and done < self.total):
            return
        self._drawn, self._shown = now, True
        elapsed = now - self._begun
        left = f"{_clock(elapsed / done * (self.total - done))} left" if 0 < done < self.total else _clock(elapsed)
        tail = f" {done}/{self.total} {left}" + (f" {note}" if note else "")
        columns = self._columns() - 1
        width = max(columns - len(self.what) - len(tail) - 3, 0)
        filled = min(width, width * done // self.total)
        line = f"{self.what} [{'#' * filled}{'.' * (width - filled)}]{tail}" if width > 4 else f"{self.what}{tail}"
        self._stream.write("\r\x1b[K" + line[:columns])
        self._stream.flush()

    def _columns(self) -> int:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):  # a terminal that is not one of the system's
            columns = 0
        return columns or 80  # some terminals say 0

    def close(self) -> None:
        """Wipe the bar away: what remains on the terminal is the result."""
        if self._shown:
            self._shown = False
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
