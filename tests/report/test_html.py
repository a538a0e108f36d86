"""The page opens from disk, prints the results' own numbers, says what is missing, and names no patient."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from sarc_ray.report import html, tabulate
from sarc_ray.report.content import Absent, Archive, Results
from tests.evaluation.cohorts import TARGETS
from tests.report.sample import CANARY, evaluate, make_frame, make_report


class Page(HTMLParser):
    """Links, anchors, tables (by title) and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.tags, self.tables, self.text = [], set(), set(), {}, ""
        self._title, self._cell, self._row, self._heading = "", None, None, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        if tag == "h3":
            self._title, self._heading = "", True
        elif tag == "table":
            self.tables[self._title] = []
        elif tag == "tr":
            self._row = []
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        if tag == "h3":
            self._heading = False
        elif tag in ("td", "th"):
            self._row.append(self._cell)
            self._cell = None
        elif tag == "tr":
            self.tables[self._title].append(self._row)

    def handle_data(self, data):
        self.text += data
        if self._heading:
            self._title += data
        if self._cell is not None:
            self._cell += data


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def table(page, start):
    return next(rows for title, rows in page.tables.items() if title.startswith(start))


@pytest.fixture(scope="module")
def tripod(folder):
    return Page((folder / html.TRIPOD_PAGE).read_text(encoding="utf-8"))


def minus(text):
    return text.replace("-", "\u2212")


def test_every_link_is_a_file_of_the_folder_or_an_anchor(folder, page, tripod):
    assert len(page.links) > 40
    for links, ids in ((page.links, page.ids), (tripod.links, tripod.ids)):
        for link in links:
            if link.startswith("#"):
                assert link[1:] in ids
            elif link != "data:,":  # no icon, and no question to the folder for one
                assert not re.match(r"[a-z]+:|//|/", link), link
                assert (folder / link).is_file(), link
    linked = {Path(link).name for link in (*page.links, *tripod.links)}
    assert {path.name for path in folder.rglob("*.*")} - {"index.html"} <= linked


def test_nothing_is_fetched(folder, page, tripod):
    for tags in (page.tags, tripod.tags):
        assert not tags & {"iframe", "object", "embed", "base"}
    for path in (*folder.glob("*.html"), *folder.glob("assets/*")):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text, path
        assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", text), path


def test_every_figure_has_svg_and_numbers(folder, report):
    svg = {path.stem for path in folder.glob("manuscript/*.svg")}
    assert svg <= {path.stem for path in folder.glob("manuscript/*.csv")}
    # two flows; of two test sets: ROC, precision-recall, distribution, calibration, decision curve, subgroups, and four
    # kinds of two targets (the last: error against uncertainty by subgroup); error against uncertainty of two targets,
    # the ladder, the sensitivity analysis, SHAP, permutation importance, partial dependence, Grad-CAM
    assert len(svg) == 2 + 2 * (6 + 4 * 2) + 2 + 2 + 3 + 1


def test_every_file_for_a_manuscript_is_listed_and_carries_the_lineage(folder, report):
    contents = pd.read_csv(folder / "manuscript" / "contents.csv")
    files = {path.name for path in folder.glob("manuscript/*")} - {"contents.csv"}
    assert set(contents["file"]) == files
    assert contents["title"].str.len().min() > 3
    for path in folder.glob("manuscript/*.csv"):
        assert set(pd.read_csv(path, dtype=str)["lineage"]) == {report.lineage.hash}, path
    for path in folder.glob("manuscript/*.svg"):
        root = ElementTree.fromstring(path.read_bytes())
        said = root.find("{http://www.w3.org/2000/svg}desc").text
        assert said.endswith(f"Lineage {report.lineage.hash}."), path
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert text.count(f"Lineage {report.lineage.hash}") > len(contents) / 2


def test_no_patient_is_named(folder, report):
    row_ids = [str(row_id) for test_set in report.test_sets for row_id in test_set.frame["row_id"]]
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert CANARY not in text, path
            assert "patient_id" not in text, path
            assert not any(row_id in text for row_id in row_ids[:20]), path


def test_the_canary_would_be_found(report, parts):
    assert CANARY in html.render(dataclasses.replace(report, title=f"{CANARY}-0"), parts)


def test_table_two_prints_the_results(page, report):
    rows = {row[0]: row[1:] for row in table(page, "Table 2")[2:]}
    for metric, label in {
        **tabulate.METRICS,
        "cal_slope": "Calibration slope",
        "citl": "Calibration in the large",
    }.items():
        expected = []
        for dataset in ("test_internal", "test_external"):
            found = report.results.row(dataset, metric)
            ideal = report.results.row(dataset, metric, score="ideal")
            expected += [
                minus(f"{found['estimate']:.3f}"),
                minus(f"{found['ci_low']:.3f} to {found['ci_high']:.3f}"),
                "\u2013" if ideal is None else minus(f"{ideal['estimate']:.3f}"),
            ]
        assert rows[label] == expected, metric
    n, n_events = (report.results.row("test_internal", "auroc")[name] for name in ("n", "n_events"))
    assert table(page, "Table 2")[0][1] == f"Internal test set, n\u00a0=\u00a0{n} ({n_events} with sarcopenia)"


def test_table_one_prints_the_tables(page, report):
    rows = {row[0]: row[1:] for row in table(page, "Table 1")[2:]}
    for number, found in enumerate(report.table_one.values()):
        for line in found.to_dict("records"):
            printed = [line[name].replace("+/-", "\u00b1") or "\u2013" for name in ("with", "without", "p")]
            printed.append("\u2013" if np.isnan(line["smd"]) else minus(f"{line['smd']:.2f}"))
            assert rows[line["variable"]][5 * number : 5 * number + 5] == [*printed, str(line["n_missing"])]


def test_targets_print_the_results(page, report):
    rows = table(page, "Predicted against measured")
    start = next(k for k, row in enumerate(rows) if row == ["CRT, s"])
    found = {row[0]: row[1:] for row in rows[start + 1 :]}
    for dataset, cell in (("test_internal", 0), ("test_external", 2)):
        ccc = report.results.row(dataset, "ccc", score="crt_s_mu", target="crt_s")
        ideal = report.results.row(dataset, "ccc", score="ideal", target="crt_s")
        assert found["Concordance (CCC)"][cell].startswith(f"{ccc['estimate']:.3f} ({ccc['ci_low']:.3f} to ")
        assert found["Concordance (CCC)"][cell + 1] == f"{ideal['estimate']:.3f}"
        coverage = report.results.row(dataset, "coverage_90", score="crt_s_mu", target="crt_s")
        assert found["Share inside the 90% interval"][cell].startswith(f"{coverage['estimate']:.3f}")


def test_csv_files_hold_the_tables_numbers(folder, report):
    numbers = pd.read_csv(folder / "manuscript" / "table-2.csv")
    for row in numbers.to_dict("records"):
        source = report.results.row(row["dataset"], row["metric"], score=row["score"])
        assert row["estimate"] == pytest.approx(source["estimate"], nan_ok=True)
    archive = pd.read_csv(folder / "manuscript" / "archive.csv", keep_default_na=False)
    assert archive["n"].sum() == 100


def test_archive_reconciles_or_says_that_it_does_not(page, report):
    rows = table(page, "Outcome of every row")
    assert ["rejected", "storage_failed", "the object store failed after all retries", "yes", "4", "4.0%"] in rows
    assert rows[-1] == ["Total", "", "", "", "100", "100.0%"]
    assert "100 outcome rows, equal to the 100 rows of the manifest" in page.text
    lost = dataclasses.replace(report.archive, n_rows=101)
    assert "NOT equal to the 101 rows" in tabulate.archive_view(lost).note


def test_says_what_it_is_not(page, report):
    assert "Not a medical device." in page.text
    assert "They prove the software, not the medicine" in page.text
    of_real_patients = dataclasses.replace(report, simulated=False)
    real = Page(html.render(of_real_patients, html.sections(of_real_patients)))
    assert "Simulated patients" not in real.text
    assert "keep it as you keep patient data" in real.text
    assert "Ideal" not in table(real, "Table 2")[1]
    assert "ideal" not in real.text.lower()


def test_a_run_with_one_target_and_little_else(tmp_path):
    frame, _ = make_frame(80, seed=7)
    target = dataclasses.replace(TARGETS[0], name="age_years", label="Age", unit="years")
    rng = np.random.default_rng(1)
    frame = frame.assign(age_years_mu=frame["age_years"] + rng.normal(0, 3, 80), age_years_sigma=3.0)
    frame = frame.drop(columns=["sarc_f", "alm_kg", "crt_s", "bmi_kg_m2"])
    whole = make_report()
    small = dataclasses.replace(
        whole,
        simulated=False,
        outcome="any finding",
        targets=(target,),
        training_scale={"age_years": (60.0, 10.0)},
        cohorts=whole.cohorts[:1],
        test_sets=(dataclasses.replace(whole.test_sets[0], frame=frame),),
        table_one={},
        results=Results(table=evaluate(frame, None, "test_internal", targets=(target,))),
        search=Absent(reason="The algorithms were not compared."),
        ladder=Absent(reason="The ladder was not climbed."),
        retrained=Absent(reason="No analysis was made."),
        shap=Absent(reason="The bundle is away."),
        importance=Absent(reason="The bundle is away."),
        dependence=Absent(reason="The bundle is away."),
        examples=Absent(reason="The internal test set has no column sex."),
        archive=Absent(reason="No archive is configured."),
    )
    facts = html.write_report(str(tmp_path), small)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    for reason in (
        "The bundle is away.",
        "The algorithms were not compared.",
        "The ladder was not climbed.",
        "No analysis was made.",
        "has no column sex",
        "No archive is configured.",
        "Table 1 was not computed",
        "No external test set",
        "SARC-F was not recorded",
    ):
        assert reason in page.text
    assert "with any finding" in page.text
    # flow, six of the score, five of the target; targets, Table 2, calibration, thresholds, explorer, subgroups,
    # stages, TRIPOD+AI
    assert facts == {"figures": 1 + 6 + 5, "tables": 8, "absent": 10}


def test_text_is_escaped(report, parts):
    text = html.render(dataclasses.replace(report, title="<b>&bold</b>"), parts)
    assert "&lt;b&gt;&amp;bold&lt;/b&gt;" in text
    assert "<b>" not in text


def test_a_new_report_leaves_nothing_of_the_old(tmp_path, report, parts, monkeypatch):
    monkeypatch.setattr(html, "sections", lambda _: parts)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "old.svg").write_text("old")
    html.write_report(str(tmp_path), report)
    assert not (tmp_path / "assets" / "old.svg").exists()


def test_archive_of_nothing_but_failures():
    counts = pd.DataFrame({"outcome": ["rejected"], "reason": ["not_dicom"], "retryable": [False], "n": [3]})
    view = tabulate.archive_view(Archive(counts=counts, n_rows=3, n_flagged=0))
    assert view.rows[0][-2:] == ("3", "100.0%")
