"""The pages in a real browser, opened from disk and offline: the explorer says the right numbers, everything has a
name, text can be read in light and dark, and nothing sticks out at three widths."""

import shutil

import numpy as np
import pytest

from sarc_ray.report import words

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

WIDTHS_PX = (390, 820, 1440)
PAGES = ("index.html", "tripod-ai.html")
# Text against the nearest opaque ground behind it, by WCAG 2.1: 4.5, or 3 where it is large.
CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = channels(getComputedStyle(e).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = {checked: 0, bad: []};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || ["SCRIPT", "OPTION"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(channels(style.color)), light(ground(element))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    found.checked += 1;
    if ((a + 0.05) / (b + 0.05) < least) found.bad.push([text.slice(0, 40), style.color, (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""
NAMED_ROLES = {
    *("button", "link", "image", "img", "slider", "spinbutton", "combobox", "table", "region", "navigation"),
    *("columnheader", "rowheader", "figure", "dialog"),
}


@pytest.fixture(scope="module")
def browser():
    """Stopped with the module: while it runs, its event loop is in the way of others."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--disable-gpu", "--disable-dev-shm-usage"], timeout=60_000
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, folder):
    """Opens a page and collects what goes wrong in it; fails at the end where something did."""
    wrong, contexts = [], []

    def open_(name="index.html", width=1440, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("request", lambda request: _only_from_disk(request.url, wrong))
        page.goto((folder / name).as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


def _only_from_disk(url, wrong):
    if not url.startswith(("file:", "data:")):
        wrong.append(f"asked for {url}")


def text(page, part):
    return page.locator(f"#explorer-{part}").inner_text().replace(",", "").replace("\u2212", "-")


def set_cut(page, index):
    page.locator("#explorer-cut").evaluate(
        "(range, index) => { range.value = index; range.dispatchEvent(new Event('input')); }", index
    )


def figures_at(label_N, score_N, cut, prevalence):
    """What the explorer must say, from the patients themselves."""
    flag_N = score_N >= cut
    tp, fp = np.sum(flag_N & (label_N == 1)), np.sum(flag_N & (label_N == 0))
    fn, tn = np.sum(label_N == 1) - tp, np.sum(label_N == 0) - fp
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    alerts = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
    with np.errstate(divide="ignore", invalid="ignore"):
        ppv = sensitivity * prevalence / alerts
        npv = specificity * (1 - prevalence) / (specificity * (1 - prevalence) + (1 - sensitivity) * prevalence)
        needed = 1 / ppv
    return {
        **{"tp": tp, "fp": fp, "fn": fn, "tn": tn, "flagged": tp + fp, "unflagged": fn + tn},
        **{"score-sensitivity": sensitivity, "score-specificity": specificity, "score-ppv": ppv, "score-npv": npv},
        **{"score-alerts": 1e4 * alerts, "score-found": 1e4 * sensitivity * prevalence, "score-needed": needed},
        "score-missed": 1e4 * (1 - sensitivity) * prevalence,
        "score-n": len(label_N),
    }


def assert_says(page, expected):
    for name, value in expected.items():
        found = text(page, name)
        if np.isfinite(value):
            decimals = len(found.partition(".")[2])
            assert float(found) == pytest.approx(value, abs=0.5000001 * 10.0**-decimals), name
        else:
            assert found == "\u2013", name


@pytest.mark.parametrize("name", PAGES)
def test_opens_without_a_complaint(open_page, name):
    page = open_page(name)
    assert page.locator("h1").inner_text() == "sample"
    assert page.locator("img[loading=lazy]").count() == (
        0 if name.startswith("tripod") else page.locator("figure").count()
    )


def test_every_picture_loads(open_page):
    page = open_page()
    page.evaluate("() => document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    page.wait_for_function("() => [...document.querySelectorAll('figure img')].every((i) => i.complete)")
    widths = page.eval_on_selector_all("figure img", "images => images.map((image) => image.naturalWidth)")
    assert len(widths) > 20
    assert min(widths) > 100


def test_numbers_are_rounded_as_in_the_tables(open_page):
    """Halves to even by the binary value: 9 / 16 is 0.562, and 1.005, which lies below its half, 1.00."""
    page = open_page()
    cases = [(9 / 16, 3), (11 / 16, 3), (0.5, 0), (1.5, 0), (2.5, 0), (-0.125, 2), (-0.25, 0), (1.005, 2), (0.285, 2)]
    cases += [(k / n, decimals) for n in (7, 32, 200) for k in range(n + 1) for decimals in (0, 1, 2, 3)]
    found = page.evaluate("cases => cases.map(([value, decimals]) => printed(value, decimals))", cases)
    assert found == [words.number(value, decimals) for value, decimals in cases]
    assert found[:2] == ["0.562", "0.688"]


@pytest.mark.parametrize("number", [0, 1])
def test_the_slider_says_what_numpy_says(open_page, report, number):
    page, test_set = open_page(), report.test_sets[number]
    page.locator("#explorer-set").select_option(str(number))
    known = test_set.frame[test_set.frame["score"].notna() & test_set.frame["outcome"].notna()]
    label_N, score_N = (known[name].to_numpy() for name in ("outcome", "score"))
    shown = page.locator("#explorer-cut-said").inner_text()
    assert float(shown) == pytest.approx(report.threshold)
    assert_says(page, figures_at(label_N, score_N, report.threshold, label_N.mean()))
    last = int(page.locator("#explorer-cut").get_attribute("max"))
    said = set()
    for index in (0, 7, 33, last // 2, last):
        set_cut(page, index)
        cut = float(page.locator("#explorer-cut-said").inner_text())
        assert_says(page, figures_at(label_N, score_N, cut, label_N.mean()))
        said.add(text(page, "tp"))
    assert len(said) > 2
    for percent in ("2.5", "40"):
        set_cut(page, 33)
        page.locator("#explorer-prevalence").fill(percent)
        assert_says(page, figures_at(label_N, score_N, cut_of(page), float(percent) / 100))


def cut_of(page):
    return float(page.locator("#explorer-cut-said").inner_text())


def test_the_keyboard_moves_the_slider(open_page):
    page = open_page()
    before = cut_of(page)
    page.locator("#explorer-cut").focus()
    page.keyboard.press("ArrowRight")
    assert cut_of(page) > before
    page.keyboard.press("Home")
    assert cut_of(page) == 0
    assert text(page, "tn") == "0"


def test_a_rule_sets_its_threshold(open_page, report):
    page = open_page()
    points = report.operating.points
    point = points[~points["in_force"]].iloc[0]
    label = f"{point['said'][0].upper()}{point['said'][1:]}"
    page.locator("#explorer-rule").select_option(label=label)
    assert cut_of(page) == pytest.approx(point["threshold"])
    assert label in page.locator("#explorer-cut").get_attribute("aria-valuetext")


def test_sarc_f_stands_beside_the_score_where_it_was_recorded(open_page, report):
    page = open_page()
    frame = report.test_sets[0].frame
    label_N, score_N = frame["outcome"].to_numpy(), frame["sarc_f"].to_numpy()
    for cut in (4, 2):
        page.locator("#explorer-sarc-f").select_option(label=str(cut))
        expected = figures_at(label_N, score_N, cut, label_N.mean())
        assert_says(page, {n.replace("score-", "sarc-f-"): v for n, v in expected.items() if n.startswith("score-")})
    page.locator("#explorer-set").select_option("1")
    assert not page.locator("#explorer-sarc-f").is_visible()
    assert not page.locator("#explorer-sarc-f-ppv").is_visible()


def test_a_prevalence_that_cannot_be_is_refused(open_page):
    page = open_page()
    for wrong in ("0", "100", "-3", ""):
        page.locator("#explorer-prevalence").fill(wrong)
        assert page.locator("#explorer-prevalence").get_attribute("aria-invalid") == "true"
        assert text(page, "score-ppv") == "\u2013"
        assert "between 0 and 100%" in page.locator("#explorer-told").inner_text()
    page.locator("#explorer-prevalence").fill("10")
    assert page.locator("#explorer-prevalence").get_attribute("aria-invalid") == "false"


def test_tables_sort_within_their_headings(open_page):
    page = open_page()
    rows = "rows => rows.map((row) => [row.className, row.cells[1] ? row.cells[1].textContent : ''])"
    before = page.eval_on_selector_all("table.table-2 tbody tr", rows)
    heads = page.locator("table.table-2 tr.columns th")
    head = heads.filter(has_text="Estimate").first
    for direction in ("ascending", "descending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == direction
        after = page.eval_on_selector_all("table.table-2 tbody tr", rows)
        assert sorted(map(tuple, after)) == sorted(map(tuple, before))
        heading = [kind for kind, _ in before].index("heading")
        assert after[heading][0] == "heading"
        for block in (after[:heading], after[heading + 1 :]):
            numbers = [float(cell.replace("\u2212", "-")) for _, cell in block]
            assert numbers == sorted(numbers, reverse=direction == "descending")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") is None
    assert page.eval_on_selector_all("table.table-2 tbody tr", rows) == before


def test_the_total_stays_last(open_page):
    page = open_page()
    page.locator("table.archive tr.columns button").nth(4).click()
    cells = page.eval_on_selector_all("table.archive tbody tr", "rows => rows.map((row) => row.cells[4].textContent)")
    assert cells == ["4", "6", "90", "100"]


def test_a_figure_enlarges_and_closes(open_page):
    page = open_page()
    dialog = page.locator("#enlarged")
    assert not dialog.is_visible()
    link = page.locator("a.picture").first
    link.click()
    assert dialog.is_visible()
    page.wait_for_function("() => document.querySelector('#enlarged img').naturalWidth > 100")
    assert dialog.locator("img").bounding_box()["width"] > 1.5 * link.locator("img").bounding_box()["width"]
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("() => document.activeElement.className") == "picture"


@pytest.mark.parametrize("name", PAGES)
def test_everything_that_is_used_has_a_name(open_page, name):
    page = open_page(name)
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    seen = [node for node in nodes if not node["ignored"] and node["role"]["value"].lower() in NAMED_ROLES]
    assert len(seen) > 50
    nameless = [node for node in seen if not node.get("name", {}).get("value", "").strip()]
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_text_can_be_read(open_page, name, scheme):
    found = open_page(name, color_scheme=scheme).evaluate(CONTRAST)
    assert found["checked"] > 200
    assert found["bad"] == []


def test_the_contrast_probe_can_fail(open_page):
    page = open_page()
    page.add_style_tag(content="h2 { color: #bbb !important; }")
    assert len(page.evaluate(CONTRAST)["bad"]) >= page.locator("h2").count() - 1


def test_light_and_dark_by_choice(open_page):
    page = open_page(color_scheme="light")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    assert page.evaluate(ground) != light
    page.locator("#theme").click()
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("width", WIDTHS_PX)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_sticks_out(open_page, name, width):
    page = open_page(name, width=width)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    outside = page.eval_on_selector_all(
        "section, figure, .controls, .cards, .told",
        "(parts, width) => parts.filter((p) => p.getBoundingClientRect().right > width + 0.5).map((p) => p.className)",
        width,
    )
    assert outside == []


def test_says_the_same_without_scripts(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("#explorer-off").is_visible()
    assert not page.locator("#explorer-on").is_visible()
    assert page.locator("table.threshold-explorer tbody tr").count() > 3
    page.locator("a.picture").first.click()
    page.wait_for_url("**/*.svg")


def test_prints_its_tables_and_figures(open_page):
    page = open_page()
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator("#theme").is_visible()
    assert page.locator("table.table-1").is_visible()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
