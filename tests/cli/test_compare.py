"""The page of several runs: one file, no network, whatever state the runs are in; looked at in a browser."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

import eqgan
from eqgan.cli.compare import compare
from tests.browser import Browser, browser_path
from tests.cli.made import made_run

ASSETS = Path(eqgan.__file__).parent / "cli" / "page"
VOID = {"meta", "link", "input", "br", "img"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One finished, one that ended early and lacks epochs, one at work and not scored yet."""
    root = tmp_path_factory.mktemp("runs")
    return [
        made_run(root, "p4", [80.0, 30.0, 12.5, 14.0, 11.0]),
        made_run(root, "z2", [90.0, 60.0, 33.3], finished=False, group="z2", skipped=(1,)),
        made_run(
            root, "a-run-with-a-name-as-long-as-the-settings-of-a-run-make-it-s0", [None], finished=False
        ),
    ]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    compare([*map(str, runs), "--out", str(out)])
    return out


class Elements(HTMLParser):
    """Every element with its attributes; an element that is not closed is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def data_of(page: Path):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1]
    )


# --- the file, without a browser --------------------------------------------------------------------------


def test_it_is_whole_and_asks_nothing_of_the_network(page):
    elements = Elements(page.read_text()).found
    for tag, attributes in elements:
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    told = [a["content"] for _, a in elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert told == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    ]
    style = (ASSETS / "page.css").read_text()
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    script = (ASSETS / "page.js").read_text()
    for word in ("fetch(", "XMLHttpRequest", "import(", "innerHTML", "eval("):
        assert word not in script


def test_script_and_markup_name_the_same_elements(page):
    there = {attributes["id"] for _, attributes in Elements(page.read_text()).found if attributes.get("id")}
    asked = set(re.findall(r'byId\("([\w-]+)"\)', (ASSETS / "page.js").read_text()))
    assert asked <= there | {"chart-fid"}


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not here to read the script")
def test_the_script_is_well_formed():
    subprocess.run(["node", "--check", str(ASSETS / "page.js")], check=True, capture_output=True)


def test_its_data_are_those_of_the_runs(page):
    data = data_of(page)
    first, second, third = data["runs"]
    assert [(row["epoch"], row["fid"]) for row in first["rows"]] == list(
        enumerate([80.0, 30.0, 12.5, 14.0, 11.0])
    )
    assert [row["epoch"] for row in second["rows"]] == [0, 2]
    assert list(second["grids"]) == ["0", "2"]
    assert [r["finished"] for r in data["runs"]] == [True, False, False]
    assert "fid" not in third["rows"][0]
    assert data["differences"] == {"discriminator.init_args.group": ["p4", "z2", "p4"]}
    assert "360 images of digits (test)" in data["reference"]
    grid = first["grids"]["4"]
    picture = Image.open(io.BytesIO(base64.b64decode(grid["source"].removeprefix("data:image/webp;base64,"))))
    assert picture.size == (grid["width"], grid["height"])


def test_what_runs_say_stays_text(tmp_path):
    """A setting is never markup, and no text ends the script it lies in."""
    bad = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>"
    folder = made_run(tmp_path, "a", [1.0], note=bad)
    compare([str(folder), str(made_run(tmp_path, "b", [1.0])), "--out", "x.html"])
    elements = Elements(Path("x.html").read_text()).found
    assert [tag for tag, _ in elements].count("script") == 2
    assert data_of(Path("x.html"))["differences"]["note"] == [bad, None]


def test_grids_are_limited_and_the_best_one_is_kept(tmp_path):
    folder = made_run(tmp_path, "a", [9.0, 8.0, 1.0, 7.0, 6.0, 5.0])
    compare([str(folder), "--out", "x.html", "--grids", "2"])
    assert list(data_of(Path("x.html"))["runs"][0]["grids"]) == ["0", "2", "5"]


def test_names_stand_for_runs_in_the_folder_of_logs(tmp_path):
    made_run(tmp_path, "a", [1.0])
    assert compare(["a", "--out", "x.html"])["runs"][0]["run"] == "a"
    assert compare(["a", "--log-dir", str(tmp_path / "logs"), "--out", "x.html"])["page"] == "x.html"


# --- the command ------------------------------------------------------------------------------------------


def test_json(runs, json_of):
    told = json_of(compare, *runs, "--out", "x.html")
    assert [run["fid_min"] for run in told["runs"]] == [9.87, 33.3, None]
    assert told["differences"] == {"discriminator.init_args.group": ["p4", "z2", "p4"]}
    assert told["scored_differently"] == []
    assert Path(told["page"]).is_file()


def test_table(runs, capsys):
    compare([*map(str, runs[:2]), "--out", "x.html"])
    out = capsys.readouterr().out
    assert "9.87" in out
    assert "progress" in out
    assert "page: x.html" in out


def test_a_warning_where_scores_cannot_be_compared(tmp_path, capsys):
    other = {"features": "default", "reference": "auto", "samples": 5000}
    folders = [made_run(tmp_path, "a", [1.0]), made_run(tmp_path, "b", [1.0], evaluation=other)]
    compare([*map(str, folders), "--out", "x.html"])
    assert "scored differently (evaluation.samples)" in capsys.readouterr().err
    assert "scored differently" in data_of(Path("x.html"))["warning"]


def test_what_else_lies_among_the_logs_is_left_out(tmp_path, capsys):
    folders = [made_run(tmp_path, "a", [1.0]), made_run(tmp_path, "b", [2.0])]
    for name, config in (("half", None), ("digits-p4cnn", "network: null\n")):
        (tmp_path / "logs" / name).mkdir()
        if config is not None:
            (tmp_path / "logs" / name / "config.yaml").write_text(config)
        folders.append(tmp_path / "logs" / name)
    told = compare([*map(str, folders), "--out", "x.html"])
    assert len(told["runs"]) == 2
    err = capsys.readouterr().err
    assert re.search(r"leaving out .*half: a folder without a config.yaml: no run", err)
    assert re.search(r"leaving out .*digits-p4cnn: the run of a classifier", err)
    young = made_run(tmp_path, "young", [])
    told = compare([str(folders[0]), str(young), "--out", "x.html"])
    assert [run["run"] for run in told["runs"]] == ["a"]
    assert re.search(r"leaving out .*young: a run without an epoch yet", capsys.readouterr().err)


def test_the_page_replaces_nothing_else(tmp_path, complaint):
    folder = made_run(tmp_path, "mine", [1.0])
    for name, told in (("a.yaml", "expected a name ending in .html"), ("a.html", "something else than")):
        (tmp_path / name).write_text("mine")
        assert told in complaint(compare, folder, "--out", tmp_path / name)
        assert (tmp_path / name).read_text() == "mine"
    for _ in range(2):  # but an earlier page it does
        compare([str(folder), "--out", str(tmp_path / "page.html")])


def test_what_cannot_be_compared(tmp_path, complaint):
    folder = made_run(tmp_path, "mine", [1.0])
    unscored = made_run(tmp_path, "unscored", [None, None])
    empty = made_run(tmp_path, "empty", [])
    assert "no run at" in complaint(compare, tmp_path / "logs" / "nowhere")
    assert "logs: empty, mine, unscored." in complaint(compare, "nowhere")
    assert "has recorded nothing yet" in complaint(compare, empty)
    assert "none of these runs has a score yet (unscored)" in complaint(compare, unscored)
    (tmp_path / "file").write_text("")
    assert "could not write file/x.html" in complaint(compare, folder, "--out", "file/x.html")
    assert "required: RUN" in complaint(compare, status=2)
    assert "did you mean '--out'" in complaint(compare, folder, "--ou", "x", status=2)
    assert "expected a whole number of at least 1" in complaint(compare, folder, "--grids", "0", status=2)
    assert not list(tmp_path.glob("*.html"))


def test_help(help_of):
    assert "eqgan compare logs/a logs/b" in help_of(compare)


# --- in a browser -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if browser_path() is None:
        pytest.skip("no Chromium here; set EQGAN_BROWSER")
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def sources(browser):
    return browser.js(
        "[...document.querySelectorAll('#grids figure')].map(f => f.querySelector('img')?.src ?? '')"
    )


def test_it_loads_from_a_file_without_a_complaint(page, browser):
    browser.errors.clear()
    browser.requests.clear()
    browser.open(page, 1280)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("data:", "file:"))] == []
    assert browser.js("document.querySelectorAll('#chart-fid path.run').length") == 2
    assert browser.js("document.querySelectorAll('.small-charts svg').length") == 4
    assert browser.js("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    stretch = "i => (i.clientWidth / i.clientHeight) / (i.naturalWidth / i.naturalHeight)"
    assert browser.js(f"Math.max(...[...document.images].map({stretch}))") == pytest.approx(1, abs=0.02)


def test_a_script_that_fails_would_be_noticed(page, browser, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace('"use strict";', '"use strict"; noSuchThing();'))
    browser.errors.clear()
    browser.open(broken, 1280)
    assert "noSuchThing is not defined" in browser.errors[0]
    browser.errors.clear()


def test_the_slider_moves_all_grids_together(page, browser):
    data = data_of(page)["runs"]
    browser.open(page, 1280)
    assert browser.js("document.getElementById('epoch-now').textContent") == "epoch 4"
    last = sources(browser)
    assert last[:2] == [data[0]["grids"]["4"]["source"], data[1]["grids"]["2"]["source"]]
    browser.js("document.getElementById('epoch').focus()")
    browser.key("Home")
    first = sources(browser)
    assert first[:3] == [run["grids"]["0"]["source"] for run in data]
    assert first[3] == last[3], "real images stay"
    browser.key("ArrowRight")
    now = sources(browser)
    assert now[0] == data[0]["grids"]["1"]["source"]
    assert now[1] == data[1]["grids"]["0"]["source"], "an epoch that is missing shows the one before"
    told = browser.js("[...document.querySelectorAll('#grids .quiet')].map(e => e.textContent)")
    assert told[:3] == ["epoch 1, FID 30.00", "epoch 0, FID 90.00", "epoch 0"]


def test_hovering_shows_the_values(page, browser):
    browser.open(page, 1280)
    browser.point("#chart-fid svg", 0.52, 0.5)
    tip = browser.js("document.querySelector('#chart-fid .tip').innerText")
    assert browser.js("!document.querySelector('#chart-fid .tip').hidden")
    assert re.split(r"\s+", tip) == ["epoch", "2", "p4", "12.5", "z2", "33.3"]
    browser.point("#chart-fid svg", 0.52, 0.5, click=True)
    assert browser.js("document.getElementById('epoch-now').textContent") == "epoch 2"
    browser.point("h1")
    assert browser.js("document.querySelector('#chart-fid .tip').hidden")


@pytest.mark.parametrize("axis", ["step", "seconds"])
def test_other_axes_and_hidden_runs(axis, page, browser):
    browser.open(page, 1280)
    before = browser.js("document.querySelector('#chart-fid path.run').getAttribute('d')")
    browser.js(f"document.querySelector('[value={axis}]').click()")
    browser.js("document.querySelectorAll('#legend button')[1].click()")
    browser.settle()
    assert browser.js("document.querySelectorAll('#chart-fid path.run').length") == 1
    browser.js("document.getElementById('log').click()")
    assert browser.js("document.querySelector('#chart-fid path.run').getAttribute('d')") != before
    assert browser.errors == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_readable_at_the_width_of_a_phone_and_of_a_desk(width, dark, page, browser):
    browser.open(page, width, dark=dark)
    assert browser.js("document.documentElement.scrollWidth") == width
    wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right"
    wide += " > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    assert browser.js(wide) == []
    small = "Math.min(...[...document.querySelectorAll('p, td, th, svg text, figcaption')].map("
    assert browser.js(small + "e => parseFloat(getComputedStyle(e).fontSize)))") >= 12
    assert browser.js(CONTRAST) >= 4.5
    assert browser.errors == []


# the least contrast of text and its background (WCAG 2.1, relative luminance)
CONTRAST = """
(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const luminance = (c) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parse(c).slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const opaque = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor, [, , , alpha = 1] = parse(colour);
      if (alpha > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = "h1, h2, p, td, th, figcaption, span.quiet, output, svg text, .check, fieldset span, button";
  const found = [...document.querySelectorAll(texts)];
  return Math.min(...found.filter((e) => e.textContent.trim() && !e.hidden).map((e) => {
    const style = getComputedStyle(e), text = e instanceof SVGElement ? style.fill : style.color;
    const [high, low] = [luminance(text), luminance(opaque(e))].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  }));
})()
"""


def test_one_run_and_many(tmp_path, browser):
    one = made_run(tmp_path, "one", [5.0])
    compare([str(one), "--out", "one.html"])
    browser.open(Path("one.html"), 390)
    assert browser.js("document.querySelectorAll('.rows td').length") > 3
    many = [made_run(tmp_path, f"run-{n}", [10.0 + n, 5.0 + n]) for n in range(11)]
    compare([*map(str, many), "--out", "many.html"])
    for width in (390, 1280):
        browser.open(Path("many.html"), width)
        assert browser.js("document.documentElement.scrollWidth") == width
        assert browser.js("document.querySelectorAll('#chart-fid path.run').length") == 11
    assert browser.errors == []
