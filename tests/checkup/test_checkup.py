"""What ``sarc-ray check`` says of good and bad manifests."""

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from sarc_ray.checkup.display import print_checkup
from sarc_ray.checkup.examine import examine
from sarc_ray.cli import app
from sarc_ray.run import load_run

N = 120


@pytest.fixture
def cohort(tmp_path):
    """A plausible cohort of which every fifth patient has low mass and low strength; pictures are empty files."""
    rng = np.random.default_rng(3)
    low = np.arange(N) % 5 == 0
    (tmp_path / "images").mkdir()
    for number in range(N):
        (tmp_path / "images" / f"{number}.dcm").touch()
    return pd.DataFrame(
        {
            "image_uri": [f"images/{number}.dcm" for number in range(N)],
            "patient_id": [f"patient-{number:03d}" for number in range(N)],
            "age_years": rng.uniform(45, 85, N).round(1),
            "sex": "M",
            "height_m": 1.7,
            "weight_kg": 65.0,
            "alm_kg": np.where(low, 18.0, 23.0),
            "hgs_kg": np.where(low, 20.0, 35.0),
            "crt_s": 9.0,
            "body_comp_method": "bia",
            "gap_days": 10,
        }
    )


@pytest.fixture
def write(tmp_path):
    def to_csv(frame, **options):
        uri = str(tmp_path / "manifest.csv")
        frame.to_csv(uri, index=False, **options)
        return uri

    return to_csv


def run_config(uri, *overrides):
    own = [f"data.derivation={uri}", "data.external=null", "data.archive=null", "data.truth=null"]
    return load_run("demo", [*own, *overrides]).config


def columns_with(checkup, severity):
    return [finding.column for finding in checkup.findings if finding.severity == severity]


def test_a_good_manifest_has_no_findings_and_tells_what_it_offers(cohort, write):
    uri = write(cohort)
    checkup = examine(uri, run_config(uri))
    assert checkup.findings == ()
    assert (checkup.n_rows, checkup.n_patients) == (N, N)
    assert (checkup.n_events, checkup.n_known) == (24, N)
    assert {split.split: split.n_patients for split in checkup.splits} == {"train": 77, "tune": 19, "test_internal": 24}
    assert sum(split.n_events for split in checkup.splits) == 24
    assert checkup.flow[0].n_images == N
    assert {line.column: line.n_rows for line in checkup.coverage}["bmi_kg_m2"] == N  # from height and weight


def test_units_names_and_missing_columns_are_explained(cohort, write):
    cohort["height_m"] = cohort["height_m"] * 100
    cohort = cohort.rename(columns={"crt_s": "CRT"}).drop(columns="gap_days")
    uri = write(cohort)
    checkup = examine(uri, run_config(uri))
    by_column = {finding.column: finding for finding in checkup.findings}
    assert columns_with(checkup, "error") == ["crt_s", "height_m", "gap_days"]
    assert by_column["height_m"].count == N
    assert by_column["height_m"].rows == (1, 2, 3, 4, 5)
    assert "divide centimetres by 100" in by_column["height_m"].remedy
    assert "rename it to that" in by_column["CRT"].remedy
    assert "crt_s" in by_column["CRT"].remedy
    assert "eligibility.gap_max_days to null" in by_column["gap_days"].remedy
    assert checkup.splits == ()


def test_what_the_run_does_not_need_is_not_asked_for(cohort, write):
    uri = write(cohort.drop(columns="gap_days"))
    assert examine(uri, run_config(uri, "eligibility.gap_max_days=null")).findings == ()
    assert examine(uri).findings == ()


def test_a_definition_asks_for_its_columns(cohort, write):
    asked = "outcome.definition=ewgsop2_2019_severe"
    uri = write(cohort)
    checkup = examine(uri, run_config(uri, asked))
    assert columns_with(checkup, "error") == ["gait_speed_m_s"]
    assert checkup.n_events is None
    uri = write(cohort.assign(gait_speed_m_s=0.7))
    checkup = examine(uri, run_config(uri, asked))
    assert checkup.findings == ()
    assert checkup.n_events > 0
    assert {line.column: line.role for line in checkup.coverage}["gait_speed_m_s"] == "outcome"


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_is_the_one_finding(cohort, write, mark, word):
    checkup = examine(write(cohort, sep=mark))
    assert [finding.found for finding in checkup.findings] == [f"one single column: cells are separated by {word}"]


def test_absent_images_are_a_warning(cohort, write):
    cohort["image_uri"] = "elsewhere/" + cohort["image_uri"]
    (finding,) = examine(write(cohort)).findings
    assert (finding.severity, finding.column) == ("warning", "image_uri")
    assert "10 of 10 tried" in finding.found


def test_a_wrong_value_is_told_once(cohort, write):
    cohort.loc[4, "age_years"] = 999
    (finding,) = examine(write(cohort)).findings
    assert (finding.severity, finding.rows) == ("error", (5,))


def test_the_roles_of_the_other_manifests(cohort, write):
    uri = write(cohort.drop(columns=["alm_kg", "hgs_kg", "crt_s", "gap_days"]))
    config = run_config("elsewhere.csv")
    archive = dataclasses.replace(config, data=dataclasses.replace(config.data, archive=uri))
    checkup = examine(uri, archive)
    assert (checkup.role, checkup.findings, checkup.n_events) == ("archive", (), None)
    external = dataclasses.replace(config, data=dataclasses.replace(config.data, external=uri))
    checkup = examine(uri, external)
    assert (checkup.role, columns_with(checkup, "error")) == ("external", ["alm_kg", "hgs_kg", "crt_s", "gap_days"])


def test_no_identifier_is_shown(cohort, write):
    cohort.loc[1, "image_uri"] = cohort.loc[0, "image_uri"]
    cohort.loc[2, "patient_id"] = ""
    cohort.loc[3, "sex"] = "unknown"
    console = Console(record=True, width=100, file=io.StringIO())
    uri = write(cohort)
    print_checkup(console, examine(uri, run_config(uri)))
    text = console.export_text()
    assert "the same image as in row 1" in text
    assert "3 errors to mend" in text
    assert "patient-" not in text
    assert "images/" not in text


def test_exit_codes(cohort, write):
    good = CliRunner().invoke(app, ["check", write(cohort)])
    assert good.exit_code == 0, good.output
    assert "a run can begin" in good.output
    bad = CliRunner().invoke(app, ["check", write(cohort.drop(columns="patient_id"))])
    assert bad.exit_code == 2
    assert "nothing can run yet" in bad.output
