"""Two reports side by side, as files: the page, the Markdown and the JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stages.report.check import check
from stages.report.collect import collect
from stages.report.compare.__main__ import main
from stages.report.compare.schema import Comparison
from stages.report.params import Params
from tests.stages.in_image.bench.test_report import SVG, Page
from tests.stages.report_inputs import GGUF, variant, write_inputs


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """A report, and one of two of its variants of which F16 became slower."""
    slower = variant("F16", 16.0, 0.9878, 40.0, 96.2)
    for name, records in (("first", None), ("second", [slower, variant(*GGUF[4])])):
        report = collect(Params(), write_inputs(tmp_path / name, records))
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    return tmp_path / "first", tmp_path / "second" / "report.json"


def run(sides: tuple[Path, Path], out: Path, *more: str) -> int:
    return main(["--first", str(sides[0]), "--second", str(sides[1]), "--out", str(out), *more])


def test_all_three_files(
    sides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("--first-label", "<b>before", "--second-label", "after")
    assert run(sides, tmp_path / "out", *labels) == 0
    printed = capsys.readouterr().out
    assert "Median latency differs: F16 +87 %; within the noise: Q4_K_M." in printed
    out = tmp_path / "out"
    assert {one.name for one in out.iterdir()} == {
        "comparison.html", "comparison.json", "comparison.md",
    }  # fmt: skip
    found = json.loads((out / "comparison.json").read_text())
    check(found, Comparison)
    text = (out / "comparison.html").read_text()
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == [] and page.fetched == []
    assert "&lt;b&gt;before" in text and "<b>before" not in text
    assert not re.search(r"url\((?!#)|@import|<script", text)
    shown = [ElementTree.fromstring(one) for one in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert len(shown) == 4
    titles = {one.text for svg in shown for one in svg.iter(f"{SVG}title")}
    assert "F16, after: 40.0 ms (38.8 ms to 41.2 ms)" in titles
    assert (out / "comparison.md").read_text().startswith("# Two reports side by side")


def test_nothing_is_overwritten_and_nothing_is_left(
    sides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert run(sides, tmp_path / "out") == 2
    assert "exists already" in capsys.readouterr().err
    sides[1].write_text("{}")
    assert run(sides, tmp_path / "new") == 2
    assert "is no report of schema 2 but something else" in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".tmp-*"))
