"""The whole report stage in the bench image: the page, its plots and its files."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stages.core.entry import main
from stages.report import backend
from stages.report.collect import collect
from stages.report.params import Params
from stages.report.stage import run
from tests.stages.report_inputs import GGUF, baseline, variant, write_inputs

SVG = "{http://www.w3.org/2000/svg}"


def build(folder: Path, *records: dict[str, object]) -> Path:
    inputs = write_inputs(folder, list(records) or None)
    (folder / "p.json").write_text("{}")
    command = ["--params", str(folder / "p.json"), "--out", str(folder / "out")]
    for name, path in inputs.items():
        command += ["--input", f"{name}={path}"]
    assert main("report", Params, run, command) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("report"))


class Page(HTMLParser):
    """Tags that must be closed, and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not str(value).startswith(("#", "data:")):
                self.fetched.append(str(value))
            if name == "id":
                self.ids.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_output_is_there(out: Path) -> None:
    names = {path.name for path in out.iterdir()}
    assert names == {"report.html", "report.md", "report.json", "MODEL_CARD.md", "manifest.json"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["metrics"]["recommended"] == "Q4_K_M"


def test_page_is_whole_and_fetches_nothing(out: Path) -> None:
    text = (out / "report.html").read_text()
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.fetched == []
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert "use Q4_K_M: 98.6 % exact match" in text
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 400_000


def test_ids_are_unique_across_plots(out: Path) -> None:
    page = Page()
    page.feed((out / "report.html").read_text())
    # Matplotlib draws a marker's shape once per plot; those are the only ids.
    assert len(page.ids) == len(set(page.ids))
    assert page.ids


def test_plots_keep_text_and_take_their_colours_from_css(tmp_path: Path) -> None:
    report = collect(Params(), write_inputs(tmp_path))
    plots = backend.plots(report["plots"])
    assert set(plots) == {"latency", "memory", "size", "curve", "confidence"}
    for name, kinds in plots.items():
        assert set(kinds) == {"wide", "narrow"}
        for svg in kinds.values():
            root = ElementTree.fromstring(svg)
            assert root.get("width") is None
            assert root.get("role") == "img"
            assert not re.search(r"#[0-9a-f]{6}", svg), f"{name}: a colour that CSS cannot change"
            assert "var(--accent)" in svg
    texts = [
        one.text for one in ElementTree.fromstring(plots["latency"]["wide"]).iter(f"{SVG}text")
    ]
    assert {"Q4_K_M", "Q2_K", "transformers FP32: 214 ms"} <= set(texts)
    titles = [
        one.text for one in ElementTree.fromstring(plots["latency"]["wide"]).iter(f"{SVG}title")
    ]
    assert "Q4_K_M: 16.2 ms, 98.6 % exact match (97.5–99.2)" in titles
    assert len(titles) == len(GGUF) + 1


def test_drawing_is_deterministic(tmp_path: Path) -> None:
    report = collect(Params(), write_inputs(tmp_path))
    assert backend.plots(report["plots"]) == backend.plots(report["plots"])


def test_one_variant_alone(tmp_path: Path) -> None:
    assert "Q4_K_M" in (build(tmp_path, variant(*GGUF[4])) / "report.html").read_text()


def test_all_variants_alike(tmp_path: Path) -> None:
    alike = [variant(name, 4.0, 1.0, 10.0, 50.0) for name in ("A", "B", "C")]
    assert (build(tmp_path, *alike, baseline(p50_ms=11.0, peak_mb=52.0)) / "report.html").is_file()


def test_values_are_escaped(tmp_path: Path) -> None:
    hostile = variant("<script>alert(1)<", 4.0, 0.9, 10.0, 50.0)
    text = (build(tmp_path, hostile) / "report.html").read_text()
    assert "<script" not in text
