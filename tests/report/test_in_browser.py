"""The page in a browser: tables sort, pictures enlarge, charts show values, and it fits a phone."""

import json
import re
import shutil
import subprocess

import pytest

from maskrcnn_ext.cli.report import write_run_page
from tests.helpers.run_folders import shapes_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Does what a reader does, and records the results.
SCRIPT = """<script>{
const observed = {width: document.documentElement.scrollWidth, window: innerWidth};
const table = [...document.querySelectorAll("table.sortable")].find(own => own.tHead.textContent.includes("objects"));
const column = index => [...table.tBodies[0].rows].map(row => row.cells[index].textContent.trim());
const heads = table.tHead.rows[0].cells;
heads[1].click(); observed.falling = column(1).map(Number);
heads[1].click(); observed.rising = column(1).map(Number);
heads[0].dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"})); observed.names = column(0); observed.sorted = heads[0].ariaSort;
const zooms = document.querySelectorAll(".zoom"), dialog = document.querySelector("dialog");
const source = () => dialog.querySelector("img")?.src;
zooms[0].click(); observed.open = dialog.open; observed.first = source() === zooms[0].querySelector("img").src;
dialog.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"})); observed.second = source() === zooms[1].querySelector("img").src;
dialog.querySelector(".close").click(); observed.closed = !dialog.open;
const chart = document.querySelector(".chart"), box = chart.querySelector("svg").getBoundingClientRect();
chart.querySelector("svg").dispatchEvent(new PointerEvent("pointermove", {clientX: box.right}));
observed.values = [...chart.querySelectorAll(".legend b")].map(own => own.textContent);
document.body.replaceChildren(Object.assign(document.createElement("pre"), {id: "observed", textContent: JSON.stringify(observed)}));
}</script></body>"""


@pytest.mark.parametrize("width", [360, 1400])
def test_a_reader_sorts_zooms_and_points(shapes, tmp_path, width):
    page = write_run_page(shapes_run(tmp_path / "run", shapes), tmp_path / "page.html")
    page.write_text(page.read_text().replace("</body>", SCRIPT))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    observed = json.loads(re.search(r'<pre id="observed">(.*?)</pre>', done.stdout).group(1))
    assert observed["falling"] == sorted(observed["falling"], reverse=True)
    assert observed["rising"] == sorted(observed["falling"])
    assert len(set(observed["falling"])) > 1
    assert observed["names"] == ["disc", "rectangle", "ring", "star", "triangle"]
    assert observed["sorted"] == "ascending"
    assert (observed["open"], observed["first"], observed["second"], observed["closed"]) == (True, True, True, True)
    assert observed["values"] == ["1", "9"], "the loss at the last iteration, and that"
    assert observed["width"] <= observed["window"] <= max(width, 500), "nothing but tables scrolls sideways"
