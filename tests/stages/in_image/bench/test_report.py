"""The whole report stage in the bench image: the page, its plots and its files."""

from __future__ import annotations

import html
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stages.core.entry import main
from stages.report import backend
from stages.report.collect import collect
from stages.report.gpu import plots as gpu_plots
from stages.report.gpu.__main__ import main as print_result
from stages.report.gpu.section import section
from stages.report.params import Params
from stages.report.stage import run
from tests.stages.gpu_inputs import STEPS_MS, VARIANTS, metrics
from tests.stages.report_inputs import GGUF, baseline, variant, write_inputs

SVG = "{http://www.w3.org/2000/svg}"


def build(folder: Path, *records: dict[str, object], gpu: dict[str, object] | None = None) -> Path:
    inputs = write_inputs(folder, list(records) or None, gpu)
    (folder / "p.json").write_text("{}")
    command = ["--params", str(folder / "p.json"), "--out", str(folder / "out")]
    for name, path in inputs.items():
        command += ["--input", f"{name}={path}"]
    assert main("report", Params, run, command) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def gpu_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("report-gpu"), gpu=metrics())


class Page(HTMLParser):
    """Tags that must be closed, and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "input"):
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


@pytest.mark.parametrize("folder", ["out", "gpu_out"])
def test_page_is_whole_and_fetches_nothing(folder: str, request: pytest.FixtureRequest) -> None:
    text = (request.getfixturevalue(folder) / "report.html").read_text()
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.fetched == []
    assert not re.search(r"url\((?!#)|@import|<script [^>]*src", text)
    assert "use Q4_K_M: 98.6 % exact match" in text
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 400_000


def test_ids_are_unique_across_plots(gpu_out: Path) -> None:
    page = Page()
    page.feed((gpu_out / "report.html").read_text())
    # Matplotlib draws a marker's shape once per plot; those are the only ids.
    assert len(page.ids) == len(set(page.ids))
    assert page.ids


def test_plots_keep_text_and_take_their_colours_from_css(tmp_path: Path) -> None:
    report = collect(Params(), write_inputs(tmp_path))
    plots = backend.plots(report["plots"])
    assert set(plots) == {
        "latency", "memory", "size", "curve", "confidence", "slices", "threads",
    }  # fmt: skip
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
    assert text.count("<script") == 1 and "<script>alert" not in text
    # Also not out of an attribute, nor out of the values that the script reads.
    assert 'data-name="&lt;script&gt;alert(1)&lt;"' in text


# ------------------------------------------------------------------ on a GPU


def texts(svg: str, tag: str = "text") -> list[str | None]:
    return [one.text for one in ElementTree.fromstring(svg).iter(SVG + tag)]


def test_page_has_the_gpu_section_where_it_was_measured(out: Path, gpu_out: Path) -> None:
    text = html.unescape((gpu_out / "report.html").read_text())
    assert "<h2>On a GPU</h2>" in text
    assert "is at batch 1 gptq:marlin (751 tokens/s, 1.55× fp16's) and at batch 16" in text
    assert (
        '<th scope="row">gptq:marlin</th><td>graph</td><td>1</td><td>1.60×</td><td>1.55×</td>'
    ) in text
    assert "<strong>bench-gpu</strong>" in text
    assert "On a GPU" not in (out / "report.html").read_text()
    both = [json.loads((folder / "report.json").read_text()) for folder in (out, gpu_out)]
    assert both[0]["gpu"] is None
    assert both[1]["gpu"]["first"] == "fp16"


def test_gpu_plots_name_every_variant_and_value() -> None:
    drawn = gpu_plots.plots(section(Path("metrics.json"), metrics(), {}, 0.005))
    assert set(drawn) == {"gpu-decode", "gpu-memory"}
    for kinds in drawn.values():
        for svg in kinds.values():
            assert not re.search(r"#[0-9a-f]{6}", svg), "a colour that CSS cannot change"
    for kind in ("wide", "narrow"):
        shown = texts(drawn["gpu-decode"][kind])
        assert [shown.count(name) for name in VARIANTS] == [2] * len(VARIANTS)
        titles = texts(drawn["gpu-decode"][kind], "title")
        assert len(titles) == len(VARIANTS) * len(STEPS_MS)
        assert "gptq:marlin at batch 16: 7,240 tokens/s" in titles
    assert "1.06 GB at batch 1, 1.48 GB at 16" in texts(drawn["gpu-memory"]["wide"])
    assert "1.48 GB" in texts(drawn["gpu-memory"]["narrow"])


def test_names_at_the_ends_of_lines_are_apart_and_inside() -> None:
    drawn = gpu_plots.plots(section(Path("metrics.json"), metrics(), {}, 0.005))
    for svg in drawn["gpu-decode"].values():
        heights = [
            float(one.attrib["y"])
            for one in ElementTree.fromstring(svg).iter(f"{SVG}text")
            if one.text in VARIANTS
        ]
        # A panel's names follow each other; letters are 11.5 units high.
        for panel in (heights[: len(VARIANTS)], heights[len(VARIANTS) :]):
            ordered = sorted(panel)
            assert min(low - high for high, low in itertools.pairwise(ordered)) > 11.5
            assert ordered[0] > 11.5


@pytest.mark.parametrize(
    "measured",
    [
        metrics(engines=["generate"]),
        metrics(["fp16"], engines=["graph"], batches=[1]),
        metrics(["nf4", "fp16"], batches=[16], process_bytes=False),
    ],
)
def test_less_measured_is_drawn_too(tmp_path: Path, measured: dict[str, object]) -> None:
    text = (build(tmp_path, gpu=measured) / "report.html").read_text()
    assert "tokens/s, " in text
    assert "nan" not in text


def test_a_result_of_the_docs_is_drawn_into_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "result.json").write_text(json.dumps(metrics()))
    assert print_result([str(tmp_path / "result.json"), "--plots", str(tmp_path / "plots")]) == 0
    assert capsys.readouterr().out.startswith("## On a GPU\n")
    files = {path.name: path.read_text() for path in (tmp_path / "plots").iterdir()}
    assert set(files) == {"gpu-decode.svg", "gpu-memory.svg"}
    for svg in files.values():
        # A file stands alone: it has its own size and colours.
        root = ElementTree.fromstring(svg)
        assert float(root.attrib["width"]) > float(root.attrib["height"]) > 0
        assert "var(" not in svg
        assert "currentColor" not in svg


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "result.json").write_text(json.dumps(metrics()))
    taken = tmp_path / "result.json" / "plots"
    assert print_result([str(tmp_path / "result.json"), "--plots", str(taken)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: --plots {taken}: cannot be written (Not a directory)\n"
