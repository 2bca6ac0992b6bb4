"""What the user sees while stages run: a live table, plain lines, or JSON lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


class View(Protocol):
    """Receives what happens; every call names the stage or image that it is about."""

    def begin(self, names: Sequence[str], estimates_sec: dict[str, float]) -> None:
        """The rows to show, in order, and how long each took the last time."""

    def state(self, name: str, state: str, detail: str = "") -> None:
        """A row's new state: `fresh`, `waiting`, `building`, `running`, `done` or `failed`."""

    def line(self, name: str, text: str) -> None:
        """A line that a stage or a build printed."""

    def say(self, text: str) -> None:
        """A sentence about the whole run."""

    def end(self) -> None:
        """Nothing more will happen."""


def choose(*, as_json: bool) -> View:
    """The view for where the output goes."""
    if as_json:
        return JsonView()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return LiveView()
    return PlainView()


def duration(seconds: float) -> str:
    """A duration as a person says it: `0.4 s`, `12 s`, `3 min 05 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


class PlainView:
    """One line per event on standard output, for logs and pipes."""

    def __init__(self) -> None:
        self._width = 0
        self._started_sec: dict[str, float] = {}

    def begin(self, names: Sequence[str], estimates_sec: dict[str, float]) -> None:
        self._width = max([self._width, *(len(name) for name in names)])

    def state(self, name: str, state: str, detail: str = "") -> None:
        if state in ("running", "building"):
            self._started_sec[name] = time.monotonic()
        if state in ("done", "failed") and name in self._started_sec:
            took = duration(time.monotonic() - self._started_sec.pop(name))
            detail = f"{took}, {detail}" if detail else took
        self._print(name, f"{state}: {detail}" if detail else state)

    def line(self, name: str, text: str) -> None:
        self._print(name, f"  {text}")

    def say(self, text: str) -> None:
        print(text, flush=True)

    def end(self) -> None:
        pass

    def _print(self, name: str, text: str) -> None:
        print(f"{name:<{self._width}}  {text}", flush=True)


class JsonView:
    """One JSON object per event on standard error; standard output is left to the result."""

    def begin(self, names: Sequence[str], estimates_sec: dict[str, float]) -> None:
        self._print(event="begin", names=list(names), estimates_sec=estimates_sec)

    def state(self, name: str, state: str, detail: str = "") -> None:
        self._print(event="state", name=name, state=state, detail=detail)

    def line(self, name: str, text: str) -> None:
        self._print(event="line", name=name, text=text)

    def say(self, text: str) -> None:
        self._print(event="message", text=text)

    def end(self) -> None:
        pass

    def _print(self, **event: Any) -> None:
        print(json.dumps(event, ensure_ascii=False), file=sys.stderr, flush=True)


@dataclass
class _Row:
    state: str = "waiting"
    detail: str = ""
    started_sec: float | None = None
    took_sec: float | None = None


_STYLES = {
    "fresh": "dim",
    "waiting": "dim",
    "building": "cyan",
    "running": "bold cyan",
    "done": "green",
    "failed": "bold red",
}


class LiveView:
    """A table that is redrawn in place. Rich honours NO_COLOR by itself."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._estimates_sec: dict[str, float] = {}
        self._live: Live | None = None

    def begin(self, names: Sequence[str], estimates_sec: dict[str, float]) -> None:
        from rich.live import Live

        self.end()
        self._rows = {name: _Row() for name in names}
        self._estimates_sec = estimates_sec
        self._live = Live(get_renderable=self._table, refresh_per_second=4)
        self._live.start()

    def state(self, name: str, state: str, detail: str = "") -> None:
        row = self._rows.setdefault(name, _Row())
        row.state, row.detail = state, detail
        if state in ("running", "building"):
            row.started_sec = time.monotonic()
        elif row.started_sec is not None:
            row.took_sec = time.monotonic() - row.started_sec
        if self._live is None:
            self.begin(list(self._rows), self._estimates_sec)

    def line(self, name: str, text: str) -> None:
        if name in self._rows and text.strip():
            self._rows[name].detail = text.strip()

    def say(self, text: str) -> None:
        if self._live is None:
            print(text, flush=True)
        else:
            self._live.console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        if self._live is not None:
            self._live.refresh()
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("stage", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("elapsed", no_wrap=True, justify="right")
        table.add_column("last time", no_wrap=True, justify="right")
        table.add_column("", no_wrap=True, ratio=1, overflow="ellipsis")
        for name, row in self._rows.items():
            estimate_sec = self._estimates_sec.get(name)
            style = _STYLES.get(row.state, "")
            table.add_row(
                name,
                Text(row.state, style=style),
                self._elapsed(row),
                "" if estimate_sec is None else duration(estimate_sec),
                Text(row.detail, style="dim"),
            )
        return table

    def _elapsed(self, row: _Row) -> str:
        if row.took_sec is not None:
            return duration(row.took_sec)
        if row.started_sec is None or row.state not in ("running", "building"):
            return ""
        return duration(time.monotonic() - row.started_sec)


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Rows of text under each other, each column as wide as its widest cell."""
    table = [list(row) for row in rows]
    widths = [max(len(row[index]) for row in table) for index in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
