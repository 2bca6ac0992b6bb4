"""Figures as people read them: one spelling for the page, the tables and the sentences."""

from __future__ import annotations

from stages.report.measured import Rate

_UNITS = ("B", "KB", "MB", "GB", "TB")


def percent(share: float, digits: int = 1) -> str:
    """0.989 as `98.9 %`."""
    return f"{share * 100:.{digits}f} %"


def interval(rate: Rate) -> str:
    """The 95 % interval as `98.1–99.4`."""
    return f"{rate['low'] * 100:.1f}–{rate['high'] * 100:.1f}"


def points(share: float) -> str:
    """A difference of shares as `0.3 points`."""
    text = f"{abs(share) * 100:.1f}"
    return f"{text} point" if text == "1.0" else f"{text} points"


def seconds(value_sec: float) -> str:
    """A duration with three digits: `12.3 ms`, `1.25 s`, `4 min 10 s`."""
    if value_sec < 0.9995:
        return f"{significant(value_sec * 1e3)} ms"
    if value_sec < 120:
        return f"{significant(value_sec)} s"
    minutes, rest = divmod(round(value_sec), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(value_bytes: float) -> str:
    """A size in decimal units: `5.1 MB`."""
    scaled, unit = float(value_bytes), 0
    while scaled >= 999.5 and unit < len(_UNITS) - 1:
        scaled, unit = scaled / 1000, unit + 1
    return f"{significant(scaled)} {_UNITS[unit]}"


def per_second(value: float | None) -> str:
    """A rate of tokens, or a dash where it was not measured."""
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else significant(value)


def significant(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def times(ratio: float) -> str:
    """A ratio as `1.3 times`."""
    return f"{significant(ratio) if ratio >= 10 else f'{ratio:.1f}'} times"


def change(share: float) -> str:
    """A relative change with its sign: `−90 %`."""
    text = f"{abs(share) * 100:.0f} %"
    return text if text == "0 %" else f"{'−' if share < 0 else '+'}{text}"


def factor(ratio: float) -> str:
    """A ratio as a table has it: `1.38×`."""
    return f"{significant(ratio)}×"


def joules(value: float) -> str:
    """Energy: `8.30 J`, `412 mJ`."""
    return f"{significant(value)} J" if value >= 0.9995 else f"{significant(value * 1e3)} mJ"
