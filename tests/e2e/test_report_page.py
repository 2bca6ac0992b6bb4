"""The report's page in a real browser: sorting, filtering, pointing, and who can read it."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from stages.report.collect import collect
from stages.report.params import Params
from tests.commands import run_invoke
from tests.stages.report_inputs import GGUF, variant, write_inputs

PAGES = ("report.html", "comparison.html")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both pages, as the bench image makes them."""
    assert run_invoke("build", "bench").returncode == 0
    folder = tmp_path_factory.mktemp("pages")
    inputs = write_inputs(folder / "inputs")
    slower = [variant("F16", 16.0, 0.9878, 40.0, 96.2), variant(*GGUF[4])]
    for name, given in (("first", inputs), ("second", write_inputs(folder / "other", slower))):
        (folder / name).mkdir()
        (folder / name / "report.json").write_text(json.dumps(collect(Params(), given)))
    (folder / "p.json").write_text("{}")
    words = ["stages.report", "--params", "/work/p.json", "--out", "/work/page"]
    for name in inputs:
        words += ["--input", f"{name}=/work/inputs/{name}"]
    for words_ in (
        words,
        ["stages.report.compare", "--first", "/work/first", "--second", "/work/second", "--out",
         "/work/comparison"],
    ):  # fmt: skip
        command = ["docker", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp"]
        command += ["--user", str(os.getuid()), "--volume", f"{folder}:/work"]
        done = subprocess.run(
            [*command, "cartwright/bench:local", *words_],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    (folder / "comparison" / "comparison.html").rename(folder / "page" / "comparison.html")
    return folder / "page"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(pages: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(pages))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: webdriver.Remote, address: str) -> Iterator[webdriver.Remote]:
    """The report, freshly opened on a wide window."""
    emulate(browser)
    console(browser)  # what was before
    browser.set_window_size(1100, 900)
    browser.get(f"{address}/report.html")
    yield browser
    emulate(browser)


def emulate(browser: webdriver.Remote, media: str = "", scheme: str = "") -> None:
    """Has the page believe that it is printed, or that its reader prefers a scheme."""
    commands = browser.command_executor._commands  # type: ignore[union-attr]
    commands["cdp"] = ("POST", "/session/$sessionId/goog/cdp/execute")
    features = [{"name": "prefers-color-scheme", "value": scheme}] if scheme else []
    params = {"media": media, "features": features}
    browser.execute("cdp", {"cmd": "Emulation.setEmulatedMedia", "params": params})


def console(browser: webdriver.Remote) -> list[str]:
    return [one["message"] for one in browser.execute("getLog", {"type": "browser"})["value"]]


def column(page: webdriver.Remote, number: int = 0) -> list[str]:
    """A column of the rows that are shown."""
    cells = page.find_elements(By.CSS_SELECTOR, "#variants tbody tr:not([hidden])")
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[number].text for row in cells]


def head(page: webdriver.Remote, name: str) -> Any:
    heads = page.find_elements(By.CSS_SELECTOR, "#variants thead th")
    return next(one for one in heads if one.text.startswith(name))


# ------------------------------------------------------------------ interaction


def test_a_column_is_sorted_by_its_values(page: webdriver.Remote) -> None:
    assert head(page, "p50").get_attribute("aria-sort") is None
    head(page, "p50").find_element(By.TAG_NAME, "button").click()
    assert head(page, "p50").get_attribute("aria-sort") == "ascending"
    # By seconds, not by text: 214 ms is last.
    assert column(page)[:2] == ["Q4_0", "Q4_K_M"] and column(page)[-1] == "transformers FP32"
    head(page, "p50").find_element(By.TAG_NAME, "button").click()
    assert head(page, "p50").get_attribute("aria-sort") == "descending"
    assert column(page)[0] == "transformers FP32"
    # Of accuracies the best comes first.
    head(page, "Exact match").find_element(By.TAG_NAME, "button").click()
    assert head(page, "p50").get_attribute("aria-sort") is None
    shown = [float(text.split(" %")[0]) for text in column(page, 1)]
    assert shown == sorted(shown, reverse=True)


def test_the_keyboard_sorts_as_well(page: webdriver.Remote) -> None:
    button = head(page, "Variant").find_element(By.TAG_NAME, "button")
    button.send_keys("\n")
    assert column(page)[:3] == ["F16", "Q2_K", "Q3_K_M"]


def test_rows_are_filtered(page: webdriver.Remote) -> None:
    field = page.find_element(By.ID, "filter")
    status = page.find_element(By.ID, "shown")
    assert status.text == "9 of 9 shown"
    field.send_keys("q4, trans")
    assert column(page) == ["Q4_K_M", "Q4_0", "transformers FP32"]
    assert status.text == "3 of 9 shown"
    page.find_element(By.ID, "accurate").click()
    assert column(page) == ["Q4_K_M"]
    field.clear()
    field.send_keys(" ")
    assert column(page) == ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]


def test_a_point_shows_its_row(page: webdriver.Remote) -> None:
    tip = page.find_element(By.ID, "tip")
    assert not tip.is_displayed()
    points = page.find_elements(By.CSS_SELECTOR, '.wide [data-point="Q3_K_M"]')
    assert len(points) == 3  # latency, memory, size
    for point in points:
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
        ActionChains(page).move_to_element(point).perform()
        assert tip.is_displayed()
        assert tip.text.splitlines()[0] == "Q3_K_M"
        assert "95.7 %" in tip.text and "17.2 ms" in tip.text and "83.1 MB" in tip.text
        pointed = page.find_elements(By.CSS_SELECTOR, "tr.pointed")
        assert [row.get_attribute("data-name") for row in pointed] == ["Q3_K_M"]
        right = page.execute_script("return arguments[0].getBoundingClientRect().right", tip)
        assert right <= page.execute_script("return document.documentElement.clientWidth")
    page.execute_script("window.scrollTo(0, 0)")
    ActionChains(page).move_to_element(page.find_element(By.TAG_NAME, "h1")).perform()
    assert not tip.is_displayed() and not page.find_elements(By.CSS_SELECTOR, "tr.pointed")


# ------------------------------------------------------------------ for everyone, everywhere


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_fetched_and_nothing_complains(
    page: webdriver.Remote, address: str, name: str
) -> None:
    page.get(f"{address}/{name}")
    fetched = page.execute_script(
        "return performance.getEntriesByType('resource').map((one) => one.name)"
    )
    assert fetched == [] and console(page) == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    ("media", "scheme"), [("screen", "light"), ("screen", "dark"), ("print", "light")]
)
def test_axe_finds_nothing(
    page: webdriver.Remote, address: str, name: str, media: str, scheme: str
) -> None:
    page.get(f"{address}/{name}")
    emulate(page, media, scheme)
    page.execute_script(
        "document.querySelectorAll('details').forEach((one) => { one.open = true })"
    )
    found = Axe().run(page)
    told = [
        f"{one['id']}: {node['html'][:120]} {node.get('failureSummary', '')}"
        for one in found["violations"]
        for node in one["nodes"]
    ]
    assert told == []
    # It did look: at contrasts, labels and tables among others.
    assert {"color-contrast", "html-has-lang", "svg-img-alt"} <= {
        one["id"] for one in found["passes"]
    }


@pytest.mark.parametrize("name", PAGES)
def test_it_fits_a_phone(page: webdriver.Remote, address: str, name: str) -> None:
    page.set_window_size(500, 900)  # the narrowest that Chromium's window can be
    page.get(f"{address}/{name}")
    wide, seen = page.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert wide <= seen
    shown = page.find_elements(By.CSS_SELECTOR, "figure .narrow svg")
    assert shown and all(one.is_displayed() for one in shown)
    assert not any(one.is_displayed() for one in page.find_elements(By.CSS_SELECTOR, ".wide svg"))


def test_without_script_it_says_all_the_same(page: webdriver.Remote, address: str) -> None:
    page.execute("cdp", {
        "cmd": "Emulation.setScriptExecutionDisabled", "params": {"value": True},
    })  # fmt: skip
    try:
        page.get(f"{address}/report.html")
        assert not page.find_element(By.CLASS_NAME, "tools").is_displayed()
        assert len(page.find_elements(By.CSS_SELECTOR, "#variants tbody tr")) == 9
        assert page.find_elements(By.CSS_SELECTOR, ".wide [data-point] title")
    finally:
        page.execute("cdp", {
            "cmd": "Emulation.setScriptExecutionDisabled", "params": {"value": False},
        })  # fmt: skip
