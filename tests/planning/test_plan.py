"""A plan beside the run that it foretells: counts, bytes and time of one manifest."""

import contextlib
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
from rich.console import Console
from typer.testing import CliRunner

from sarc_ray import storage, tables, watching
from sarc_ray.bundle import load_bundle, write_bundle
from sarc_ray.cli import app
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.distributed import cluster, sample
from sarc_ray.errors import ConfigError, Reason
from sarc_ray.instruments import BYTES_COLUMN, PARTS, with_seconds
from sarc_ray.inventory.take import InventoryRequest, take_inventory
from sarc_ray.inventory.take import load_run_for as load_inventory_run
from sarc_ray.planning.census import take_census
from sarc_ray.planning.display import print_plan
from sarc_ray.planning.estimate import error_of_mean
from sarc_ray.planning.plan import PlanRequest, _cluster_there, draw, load_run_for, make_plan, row_cost
from sarc_ray.planning.record import to_mapping
from sarc_ray.privacy import create_key_file
from sarc_ray.scoring_request import ScoringRequest, score_request
from sarc_ray.scoring_request import load_run_for as load_scoring_run
from tests import bundle_factory, dicom_factory

JOB = Path(__file__).parents[2] / "jobs" / "plan.py"
N_ROWS = 48
SETTINGS = ["engine.num_cpus=2", "engine.rows_per_block=16", "engine.scorers=1"]


def chest(seed, **options):
    noise = np.random.default_rng(seed).integers(0, 60, dicom_factory.picture().shape)
    picture = np.minimum(dicom_factory.picture() + noise, 4095).astype(np.uint16)
    return dicom_factory.make_dicom(picture, **options)


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("bundle") / "bundle")
    members = bundle_factory.make_members(1)
    parts = {"stage2": bundle_factory.make_stage2(members, 1), "ood": bundle_factory.make_ood(members, 1)}
    write_bundle(uri, members=members, spec=bundle_factory.SPEC, metrics={}, lineage={}, **parts)
    return uri


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder whose manifest holds every kind of row that can be told before, and two kinds that cannot."""
    folder = tmp_path_factory.mktemp("archive")
    records = []
    for number in range(N_ROWS):
        kind = number % 12
        if kind == 10:
            (folder / f"{number:02d}.dcm").write_bytes(b"no DICOM object")
        elif kind != 11:  # of these there is no object
            options = {"omit": ("PatientAge",)} if kind == 3 else {}
            if kind < 2:
                options = {"PatientSize": 1.6, "PatientWeight": 60.0}
            (folder / f"{number:02d}.dcm").write_bytes(chest(number, **options))
        records.append(
            {
                "image_uri": f"{number:02d}.dcm",
                "patient_id": f"P{number}",
                # Kind 2: the header has the age; kind 3: nobody has it.
                "age_years": {2: np.nan, 3: np.nan, 4: 12.0, 5: 30.0}.get(kind, 60.0),
                "sex": "F",
                "bmi_kg_m2": np.nan if kind == 6 else 24.0,
                "view": "LATERAL" if kind == 7 else None,
            }
        )
    storage.write_table(str(folder / "manifest.csv"), pd.DataFrame(records))
    create_key_file(str(folder.parent / "plan.key"))
    return folder


@pytest.fixture(scope="module")
def key_setting(archive):
    return f"score.key_file={archive.parent / 'plan.key'}"


@pytest.fixture(scope="module")
def plan(ray_session, archive, bundle_uri):
    request = PlanRequest(bundle=bundle_uri, manifest=str(archive / "manifest.csv"), nodes=3)
    settings = [f"plan.sample_images={N_ROWS}", "plan.price_per_node_hour=7.2", "plan.node_cpus=8"]
    return make_plan(request, load_run_for(request, None, [*SETTINGS, "engine.scorers=null", *settings]))


@pytest.fixture(scope="module")
def scored(ray_session, archive, bundle_uri, key_setting, tmp_path_factory):
    """The run that was planned: its record, its table, and what was told on the way."""
    uri = str(tmp_path_factory.mktemp("scored") / "scores")
    request = ScoringRequest(bundle=bundle_uri, manifest=str(archive / "manifest.csv"), table=uri)
    told = []
    record = score_request(
        request,
        load_scoring_run(request, None, [*SETTINGS, key_setting]),
        lambda what, done, total: told.append((what, done, total)),
    )
    return record, uri, told


def test_counts_are_those_that_scoring_comes_to(plan, scored):
    found = tables.read(scored[1])["reason"].value_counts().to_dict()
    census = plan.census
    assert census.ineligible == {Reason.AGE_BELOW_MINIMUM: 4, Reason.LATERAL_VIEW: 4, Reason.PAEDIATRIC: 4}
    assert {reason: found[reason] for reason in census.ineligible} == census.ineligible
    # Half of those without an age are scored: their header has it.
    assert census.undecided == {Reason.MISSING_AGE: 8, Reason.MISSING_BMI: 4}
    assert (found["missing_age"], found["missing_bmi"]) == (4, 4)
    told_by_reading = found["not_dicom"] + found["object_missing"]
    assert told_by_reading == 8
    assert census.eligible == found[""] + told_by_reading - 4
    assert census.n_rows == sum(found.values()) == N_ROWS


def test_a_sample_of_all_rows_ends_as_the_run_does(plan, scored):
    tally = plan.tally()
    assert dict(tally.outcomes) == tables.read_pointer(scored[1]).counts
    assert tally.reasons == tables.read(scored[1])["reason"].value_counts().to_dict()
    assert plan.sources == {"age_years": (8, 4), "bmi_kg_m2": (4, 0)}


def test_the_sample_equals_the_scores_themselves(plan, scored, bundle_uri):
    columns = ["row_id", "outcome", "reason", "score", "alm_kg_mu", "ood_distance"]
    sampled = plan.sample.table.select(columns).to_pandas().sort_values("row_id", ignore_index=True)
    table = tables.read(scored[1])[columns]
    pd.testing.assert_frame_equal(sampled, table, check_exact=True)
    assert plan.lineage["model_id"] == load_bundle(bundle_uri).model_id


def test_bytes_are_those_of_the_objects(plan, archive):
    in_all = sum(path.stat().st_size for path in archive.glob("*.dcm"))
    assert plan.sized_by == "sample"
    assert plan.n_bytes == pytest.approx(in_all, abs=1)


def test_every_part_was_timed(plan):
    assert set(plan.cost.seconds) == set(PARTS)
    assert all(seconds > 0 for seconds in plan.cost.seconds.values())
    assert plan.sample.n_readers == 2
    assert plan.sample.start_seconds > 0
    assert 0 < plan.cost.error_share < 2


def test_more_nodes_take_less_time_and_have_a_price(plan):
    assert (plan.here.cluster.nodes, plan.here.cluster.cpus) == (1, 2)
    assert (plan.there.cluster.nodes, plan.there.cluster.cpus) == (3, 24)
    assert plan.there.rows_per_second > 2 * plan.here.rows_per_second
    assert plan.there.cost == pytest.approx(3 * 7.2 * plan.there.seconds / 3600)
    assert plan.here.bottleneck in ("storage", "decode", "network")


def test_what_is_printed_and_written(plan):
    console = Console(width=120, record=True)
    print_plan(console, plan)
    said = console.export_text()
    for words in (
        "undecided",
        "missing_age",
        "the clinical columns suffice for some rows alone",
        "age_years: missing in 8 rows; the header had it in 4 of 8 sampled rows without it",
        "on the nodes asked about: 3 x node, 24 CPUs",
        "USD",
        "bottleneck",
        "This takes for granted that",
    ):
        assert words in said
    reasons = {name: count for name, count in plan.tally().reasons.items() if name}
    assert len(reasons) > 1
    assert all(f"  {count} {name}: " in said for name, count in reasons.items())
    written = json.loads(json.dumps(to_mapping(plan), allow_nan=False))
    assert written["eligible"] + sum((written["undecided"] | written["ineligible"]).values()) == written["rows"]
    assert written["clinical"]["sufficient"] == "partly"
    assert written["there"]["currency"] == "USD"
    assert written["here"]["hours"] == pytest.approx(plan.here.seconds / 3600)


def test_of_an_inventory_the_plan_knows_every_header(ray_session, archive, bundle_uri, key_setting, tmp_path):
    """Rows by reason are then exactly those of scoring, but for what only pixels show."""
    manifest = str(tmp_path / "archive.parquet")
    taken = InventoryRequest(folder=str(archive), manifest=manifest)
    take_inventory(taken, load_inventory_run(taken, str(archive.parent / "plan.key"), SETTINGS))
    census = take_census(read_manifest(manifest), load_bundle(bundle_uri).spec)
    request = ScoringRequest(bundle=bundle_uri, manifest=manifest, table=str(tmp_path / "scores"))
    score_request(request, load_scoring_run(request, None, [*SETTINGS, key_setting]))
    found = tables.read(request.table)["reason"].value_counts().to_dict()
    assert census.headers_read
    assert census.undecided == {}
    assert census.ineligible | {Reason.NONE: census.eligible} == found
    assert census.eligible == 8
    assert {"not_dicom", "missing_age", "missing_bmi"} <= set(found)
    assert census.known_bytes == sum(path.stat().st_size for path in archive.iterdir())


def test_the_run_says_how_it_went(scored, archive):
    record, uri, told = scored
    assert told[-1][1:] == (N_ROWS, N_ROWS)
    what, _, details = told[-1][0].partition("; ")
    assert what == "radiographs"
    counts = tables.read_pointer(uri).counts
    assert details.startswith(", ".join(f"{name} {counts[name]}" for name in sorted(counts, reverse=True)))
    progress = storage.read_json(watching.progress_uri(uri))
    assert (progress["state"], progress["rows_done"], progress["outcomes"]) == ("finished", N_ROWS, counts)
    pointer = tables.read_pointer(uri)
    summary = storage.read_json(watching.summary_uri(uri, pointer.version))
    assert (summary["outcomes"], summary["rows"], summary["rows_of_this_run"]) == (counts, N_ROWS, N_ROWS)
    assert sum(summary["reasons"].values()) == counts["rejected"] + counts["abstained"]
    assert set(summary["parts"]) == set(PARTS)
    assert not [part for part in summary["parts"].items() if not part[1]["worker_seconds"] > 0]
    assert summary["fetched_bytes"] == sum(path.stat().st_size for path in archive.glob("*.dcm"))
    assert summary["seconds"]["wall"] >= summary["seconds"]["streaming"] > 0
    assert summary["lineage"]["manifest_sha256"] == storage.content_id(str(archive / "manifest.csv"))
    assert summary["lineage"]["model_id"] == pointer.lineage["model_id"]
    assert record["facts"]["n_rows"] == N_ROWS


def test_nothing_that_is_watched_stays_in_the_table(scored):
    assert not [name for name in tables.read(scored[1]).columns if name.startswith("watch_")]


def test_the_command_writes_its_plan(ray_session, archive, bundle_uri, tmp_path):
    to = str(tmp_path / "plan.json")
    command = ["plan", "--bundle", bundle_uri, "--manifest", str(archive / "manifest.csv"), "--to", to]
    settings = [*SETTINGS, "plan.sample_images=12"]
    result = CliRunner().invoke(app, [*command, *(part for value in settings for part in ("--set", value))])
    assert result.exit_code == 0, result.output
    assert "a random sample of 12 rows" in result.output
    written = storage.read_json(to)
    assert (written["rows"], written["sample"]["rows"], written["there"]) == (N_ROWS, 12, None)
    assert written["here"]["cost"] is None


@pytest.fixture(scope="module")
def children(archive, tmp_path_factory):
    """A manifest of which no row can be scored."""
    uri = str(tmp_path_factory.mktemp("children") / "manifest.csv")
    rows = storage.read_table(str(archive / "manifest.csv")).assign(age_years="12")
    storage.write_table(uri, rows.assign(image_uri=[str(archive / name) for name in rows["image_uri"]]).head(4))
    return uri


def test_a_manifest_of_which_nothing_can_be_scored_has_its_exit_code(ray_session, children, bundle_uri):
    command = ["plan", "--bundle", bundle_uri, "--manifest", children]
    result = CliRunner().invoke(app, [*command, *(part for value in SETTINGS for part in ("--set", value))])
    assert result.exit_code == 4
    assert "paediatric" in result.output


def test_the_job_ends_with_the_same_code_after_writing_its_plan(
    ray_session, children, bundle_uri, tmp_path, monkeypatch
):
    to = str(tmp_path / "plan.json")
    options = ["--bundle", bundle_uri, "--manifest", children, "--to", to]
    settings = [part for value in SETTINGS for part in ("--set", value)]
    monkeypatch.setattr(sys, "argv", ["plan.py", *options, *settings])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(JOB), run_name="__main__")
    assert ended.value.code == 4
    assert storage.read_json(to)["eligible"] == 0


def test_gpus_that_are_not_there_are_refused_before_anybody_waits(ray_session, archive, bundle_uri):
    request = PlanRequest(bundle=bundle_uri, manifest=str(archive / "manifest.csv"), nodes=None)
    run = load_run_for(request, None, [*SETTINGS, "engine.gpus_per_scorer=1", "plan.sample_images=1"])
    with pytest.raises(ConfigError, match=r"engine\.gpus_per_scorer: 1 asked for, no node that is up has so many"):
        make_plan(request, run)


def test_a_cluster_of_which_only_the_head_is_up_is_refused(archive, bundle_uri, monkeypatch):
    monkeypatch.setattr(cluster, "session", lambda config: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "node_resources", lambda: [{"CPU": 0.0, "memory": 1e9}, {"memory": 1e9}])
    request = PlanRequest(bundle=bundle_uri, manifest=str(archive / "manifest.csv"), nodes=20)
    with pytest.raises(
        ConfigError, match=r"no node with a CPU is up.*start a worker first \(cluster\.yaml: min_workers"
    ):
        make_plan(request, load_run_for(request, None, SETTINGS))


def test_cores_that_another_job_holds_are_not_waited_for_for_ever(ray_session, archive, bundle_uri, monkeypatch):
    monkeypatch.setattr(sample, "_WARM_UP_LIMIT_S", 5.0)
    request = PlanRequest(bundle=bundle_uri, manifest=str(archive / "manifest.csv"), nodes=None)
    holder = ray.remote(num_cpus=1)(_Holder).remote()
    ray.get(holder.ready.remote())
    try:
        with pytest.raises(ConfigError, match=r"needs 2 CPUs of the largest node at once .* another job holds them"):
            make_plan(request, load_run_for(request, None, [*SETTINGS, f"plan.sample_images={N_ROWS}"]))
    finally:
        ray.kill(holder)


class _Holder:
    def ready(self):
        return True


@pytest.mark.parametrize(("gpus_per_scorer", "cpus", "gpus"), [(0, 32, 0.0), (1, 16, 8.0)])
def test_nodes_asked_about_are_like_the_largest_by_what_holds_the_networks(gpus_per_scorer, cpus, gpus):
    request = PlanRequest(bundle="bundle", manifest="manifest.csv", nodes=2)
    run = load_run_for(request, None, [f"engine.gpus_per_scorer={gpus_per_scorer}"])
    up = [{"CPU": 16.0}, {"CPU": 8.0, "GPU": 4.0}]
    timed = sample.TimedSample(
        table=pa.table({}),
        n_readers=1,
        n_scorers=1,
        start_seconds=0.0,
        core_seconds=0.0,
        reader_cpu_seconds=0.0,
        on_gpu=False,
    )
    there = _cluster_there(2, up, run, timed)
    assert (there.cpus, there.gpus) == (cpus, gpus)


def test_the_sample_errs_in_how_many_rows_reach_the_networks_too():
    """Reading took the same for all, so that its mean is known exactly; one in four reaches the networks."""
    n = 40
    ways = [("scored", ""), ("abstained", "missing_age"), ("rejected", "not_dicom"), ("rejected", "object_missing")]
    table = pa.table(
        {
            "outcome": ["abstained" if k == 0 else ways[k % 4][0] for k in range(n)],
            "reason": ["out_of_distribution" if k == 0 else ways[k % 4][1] for k in range(n)],
            "ood_distance": [1.5 if k % 4 == 0 else None for k in range(n)],
            BYTES_COLUMN: pa.array([100] * n, pa.int64()),
        }
    )
    timed = sample.TimedSample(
        table=with_seconds(table, dict.fromkeys(PARTS, 0.1 * n)),
        n_readers=1,
        n_scorers=1,
        start_seconds=0.0,
        core_seconds=0.0,
        reader_cpu_seconds=0.0,
        on_gpu=False,
    )
    reached_N = np.tile([1.0, 0.0, 0.0, 0.0], n // 4)
    assert row_cost(timed, threads=1).error_share == pytest.approx(error_of_mean(reached_N))


def test_a_sample_is_drawn_by_the_seed_alone():
    frame = pd.DataFrame({"row_id": np.arange(100), "image_uri": "x", "age_years": 60.0, "pain": 1.0})
    spec = bundle_factory.SPEC
    first = draw(frame, spec, n=10, seed=1)
    assert first.columns.tolist() == ["row_id", "image_uri", "age_years"]
    assert first.equals(draw(frame, spec, n=10, seed=1))
    assert not first.equals(draw(frame, spec, n=10, seed=2))
    assert len(draw(frame, spec, n=1000, seed=1)) == 100
