"""The page in a real browser: Chromium, without a head and without a network."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from hypersphere.reporting.page import write_page
from tests.test_embedding_plots import item as embedding_item
from tests.test_tables import cell, item

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here (apt-get install chromium)"),
]
COMMIT, CONTENT = "c0ffee" * 6 + "cafe", "0123456789abcdef" * 4
CLAIM = {
    "paper": "made-up", "item": "table1", "claim": "New > old", "verdict": "holds",
    "evidence": "2 supported", "n": "3", "scope": "x",
}  # fmt: skip


def record(run_id, seed, **more):
    return {
        "schema": 1, "run_id": run_id, "kind": "training", "parent": None, "identity": {}, "diverged": False,
        "git": {"commit": COMMIT, "dirty": False}, "data": {"name": "set_a", "content": CONTENT},
        "versions": {"torch": "2.6.0"}, "hardware": {"processor": "A processor", "device": "cpu", "threads": 1, "cores": 2},
        "seconds": 12.5, "finished": "2026-01-01T00:00:00Z", "metrics": {"test_accuracy": 0.9},
        "config": {"seed": seed, "head": {"name": "softmax", "scale": 16}},
    } | more  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page of every verdict, a variant, panels in three dimensions and a claim."""
    table = item()
    cells = list(table.cells)
    first = cells[0]
    # its numbers come of evaluations, which judge the trainings that it names
    held = {unit: f"judge{unit}" for unit in first.values}
    cells[0] = replace(first, records=held)
    table = replace(table, cells=tuple(cells), preset="paper", source="A paper (2026)")
    odd = tuple(cell("it's", k, "new", "0.9", [0.8, 0.8, 0.8]) for k in "23")
    variant = replace(table, variant="raw", cells=odd, rows=("dataset",), columns=("k",))
    records = {}
    for number, run_id in enumerate(dict.fromkeys(r for c in table.cells for r in c.run_ids)):
        records[run_id] = record(run_id, number)
    for unit, parent in enumerate(first.run_ids):
        judge = {
            "kind": "evaluation",
            "parent": parent,
            "identity": {"evaluation": {"name": "accuracy"}},
        }
        records[f"judge{unit}"] = {**record(f"judge{unit}", 0, **judge), "config": None}
    path = tmp_path_factory.mktemp("page") / "index.html"
    items = [table, variant, embedding_item(targets=True)]
    write_page(
        path,
        "paper",
        items,
        [CLAIM],
        records,
        commands={first.run_ids[1]: "python train.py seed=1"},
    )
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page; whatever it complains of, or asks a network for, fails the test."""
    trouble, pages = [], []

    def ask(route):
        if route.request.url.split("#")[0] != address and not route.request.url.startswith("data:"):
            trouble.append(f"request: {route.request.url[:100]}")
        route.continue_()

    def opened(width=1280, height=900, **settings):
        page = browser.new_page(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **settings
        )
        page.set_default_timeout(20_000)
        page.on(
            "console", lambda said: said.type in ("error", "warning") and trouble.append(said.text)
        )
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.route("**/*", ask)
        page.goto(address)
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert trouble == []


TABLE = "table[data-table=made-up-table1]"


def column(page, name):
    """The texts of a column from top to bottom."""
    heads = [text.split("\n")[0] for text in page.locator(f"{TABLE} thead th").all_inner_texts()]
    return page.locator(f"{TABLE} tbody td:nth-child({heads.index(name) + 1})").all_inner_texts()


def heading(page, name):
    return page.locator(f"{TABLE} thead button", has_text=re.compile(f"^{name}$"))


def test_sorts_numbers_up_and_down_with_blanks_last(visit):
    page = visit()
    printed = ["0.90", "0.500 ± 0.010", "0.9", "0.7", "–", "diverged", "0.8", "0.8", "0.8"]
    assert column(page, "published") == printed
    heading(page, "published").click()
    upwards = column(page, "published")
    assert upwards[:2] == ["0.500 ± 0.010", "0.7"] and upwards[-2:] == ["–", "diverged"]
    heading(page, "published").click()
    assert column(page, "published")[0] in ("0.90", "0.9")
    assert column(page, "published")[-3:] == ["0.500 ± 0.010", "–", "diverged"]
    assert heading(page, "published").locator("..").get_attribute("aria-sort") == "descending"
    heading(page, "k").click()  # 10 comes after 4, as numbers do
    assert column(page, "k") == ["2", "2", "2", "2", "3", "3", "4", "10", "10"]
    heading(page, "difference").click()
    found = column(page, "difference")
    numbers = [float(text) for text in found if text]
    assert numbers == sorted(numbers) and len(numbers) == 4 and found[4:] == [""] * 5


def test_the_runs_behind_a_number_and_back(visit):
    page = visit()
    button = page.locator(f"{TABLE} .ours").first
    button.click()
    dialog = page.locator("dialog[open]")
    text = dialog.inner_text()
    for said in ("judge0", "se2ne0", COMMIT, CONTENT, "0.905", "A processor", "12.5 s", "torch 2.6.0",
                 "make reproduce-tables PRESET=paper PAPER=made-up ITEM=table1",
                 "hypersphere explain made-up table1 dataset=set_a k=2 method=new metric=accuracy --preset paper"):  # fmt: skip
        assert said in text, said
    runs = dialog.locator("details.run")
    assert runs.count() == 6
    other = runs.filter(has_text="se2ne1").first
    other.locator("summary").first.click()
    told = other.inner_text()
    assert "python train.py seed=1" in told
    assert re.search(r"What distinguishes it in this table\s+seed\s+1\s+Whole configuration", told)
    other.get_by_text("Whole configuration").click()
    assert json.loads(other.locator("details pre").inner_text()) == record("", 1)["config"]
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert button.evaluate("it => it === document.activeElement")
    # sorted rows keep their own runs
    heading(page, "published").click()
    page.locator(f"{TABLE} .ours").first.click()
    assert "0.61" in dialog.inner_text() and "se2ol0" in dialog.inner_text()


def test_the_keyboard_alone(visit):
    page = visit()  # focus may move after the key press has returned: what is asked is waited for
    page.keyboard.press("Tab")
    page.wait_for_function("document.activeElement.textContent === 'Skip to the results'")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'main'")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "ours":
            break
    page.wait_for_function("document.activeElement.dataset.cell === '0'")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.activeElement.dataset.cell === '1'")
    page.keyboard.press("Enter")
    assert "0.61" in page.locator("dialog[open]").inner_text()
    page.keyboard.press("Tab")
    page.wait_for_function("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.dataset.cell === '1'")
    page.keyboard.press("Tab")  # one stop for a whole table: the next is outside it
    page.wait_for_function(f"!document.activeElement.closest('{TABLE}')")
    heading(page, "ours").focus()
    page.keyboard.press("Enter")
    assert heading(page, "ours").locator("..").get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_scrolls_no_page_sideways(visit, width):
    page = visit(width=width, height=844)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    regions = page.locator(".scroll").evaluate_all(
        "all => all.map(it => [it.scrollWidth, it.clientWidth])"
    )
    assert any(inner > outer for inner, outer in regions)  # tables do, in their own region
    page.locator(f"{TABLE} .ours").first.click()
    assert page.locator("dialog").evaluate("it => it.scrollWidth <= it.clientWidth")


CONTRAST = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const found = {};
  for (const it of document.querySelectorAll("body *")) {
    if (![...it.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !it.getClientRects().length || it.closest("svg")) continue;
    let under = it, back;
    do { back = parse(getComputedStyle(under).backgroundColor); under = under.parentElement; } while (back.length > 3 && back[3] === 0 && under);
    const [a, b] = [light(parse(getComputedStyle(it).color)), light(back)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) found[`${it.tagName} ${it.className} ${it.textContent.slice(0, 30)}`] = ratio;
  }
  return found;
}"""


def test_both_schemes_can_be_read(visit):
    colours = {}
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate(CONTRAST) == {}, scheme
        page.locator(f"{TABLE} .ours").first.click()
        assert page.evaluate(CONTRAST) == {}, scheme
        colours[scheme] = [
            page.locator(place).first.evaluate("it => { const s = getComputedStyle(it); return [s.color, s.backgroundColor, s.stroke] }")
            for place in ("body", f"{TABLE} .chip", ".strip .dots", "dialog")
        ]  # fmt: skip
    assert all(one != other for one, other in zip(colours["light"], colours["dark"]))


def test_a_dot_for_each_value_on_one_scale(visit):
    page = visit()
    rows = page.locator(f"{TABLE} tbody tr")
    paths = rows.nth(0).locator(".dots").get_attribute("d")
    assert paths.count("M") == 3
    at = {}  # where 0.9 stands, as one of our values and as the published number
    at["dot"] = float(re.search(r"M([\d.]+)", paths)[1])
    at["line"] = float(re.search(r"M([\d.]+)", rows.nth(2).locator(".line").get_attribute("d"))[1])
    assert at["dot"] == at["line"]
    assert (
        rows.nth(6).locator(".crosses").count() == 1
        and rows.nth(0).locator(".crosses").count() == 0
    )
    label = rows.nth(6).locator("svg title").text_content()
    assert label == "seed 0: 0.8; seed 1: 0.8; seed 2: diverged; published: 0.8"


def test_rows_of_one_verdict_and_links_into_what_is_folded(visit):
    page = visit()
    page.select_option("#only", "differs")
    shown = page.locator("tr[data-verdict]:visible")
    assert {row.get_attribute("data-verdict") for row in shown.all()} == {"differs"}
    assert page.locator("#found").inner_text() == f"{shown.count()} rows" and shown.count() >= 2
    page.select_option("#only", "")
    assert page.locator(f"{TABLE} tbody tr:visible").count() == 9
    page.select_option("#jump", "made-up-table1--raw")
    title = page.locator("#made-up-table1--raw")
    title.wait_for(state="visible")
    page.wait_for_function("""() => { const top = document.getElementById("made-up-table1--raw").getBoundingClientRect().top;
      return top >= document.querySelector(".toc").getBoundingClientRect().bottom - 1 && top < innerHeight; }""")
    page.locator("table[data-table=made-up-table1--raw] .ours").first.click()
    assert """'dataset=it'"'"'s'""" in page.locator("dialog[open]").inner_text()  # for a shell


def test_a_panel_turns_on_arrow_keys(visit):
    page = visit()
    page.locator(".turn summary").first.click()
    canvas = page.locator(".turn canvas").first
    canvas.focus()
    page.wait_for_function("it => it.width > 100", arg=canvas.element_handle())
    picture = "it => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(it.toDataURL()))))"
    before = canvas.evaluate(picture)
    assert canvas.evaluate(
        "it => it.getContext('2d').getImageData(0, 0, it.width, it.height).data.some(v => v)"
    )
    page.keyboard.press("ArrowRight")
    turned = canvas.evaluate(picture)
    page.keyboard.press("Home")
    assert turned != before and canvas.evaluate(picture) == before
