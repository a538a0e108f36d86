"""``tune`` for any table: features and a 0/1 outcome in, a calibrated classifier and its records out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray import __version__, stages, storage
from sarc_ray.config import assignment
from sarc_ray.distributed import cluster
from sarc_ray.errors import ConfigError, EvaluationError
from sarc_ray.evaluation.algorithm_table import algorithm_table, cross_validated
from sarc_ray.run import Run, fingerprint_of, load_run
from sarc_ray.stage2.model import Stage2Model
from sarc_ray.stage2.persist import content_hash, to_bytes
from sarc_ray.telling import Tell, silent
from sarc_ray.tuning import Problem, fit_finalists, nested_cross_validation, search_stage2, write_search

MODEL_FILE = "model.skops"
_TEST = "test"
_NESTED, _TEST_SCORES = "nested.csv", "test_scores.parquet"
_TRUTH = {"true": 1.0, "false": 0.0}
# Forests hold features as 32-bit numbers.
_LARGEST = float(np.finfo(np.float32).max)
_SHOWN = 60
_NUMBERS = (
    "a number below 3.4e38",
    "code text as numbers, fill or leave out missing values, or leave the column out with --features",
)
_OUTCOMES = ("0 or 1", "code the outcome so, and leave out rows that have none")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRequest:
    """What to learn from.

    Attributes:
        table: ``.csv``, ``.parquet``, or a folder of Parquet files; any fsspec URL.
        outcome: column of 0 and 1.
        to: folder for what comes of it.
        group: column that says whose row it is; None where each row is a patient of its own.
        features: columns to learn from; empty for all others.
        test: a further table with the same columns, on which every finalist is scored; None for none.
    """

    table: str
    outcome: str
    to: str
    group: str | None
    features: tuple[str, ...]
    test: str | None


def read_request(
    table: str | None, outcome: str | None, to: str | None, *, group: str | None, features: str | None, test: str | None
) -> TableRequest | None:
    """The request that the options make; None where none of them is given.

    Raises:
        ConfigError: only some of those that belong together are given.
    """
    needed = {"--table": table, "--outcome": outcome, "--to": to}
    further = {"--group": group, "--features": features, "--test": test}
    missing = [name for name, value in needed.items() if not value]
    if len(missing) == len(needed) and not any(further.values()):
        return None
    if missing:
        raise ConfigError(
            f"{', '.join(needed)} belong together: {' and '.join(missing)} not given; add what is missing"
        )
    chosen = tuple(name.strip() for name in (features or "").split(",") if name.strip())
    return TableRequest(table=str(table), outcome=str(outcome), to=str(to), group=group, features=chosen, test=test)


def load_run_for(request: TableRequest, config: str | None, overrides: Sequence[str]) -> Run:
    """The run that gives the settings of the search, the engine and the seed.

    Args:
        request: what to search.
        config: the run's YAML, or a preset; None takes the preset ``paper``.
        overrides: ``a.b=c`` assignments.
    """
    own = [assignment("run.directory", request.to), assignment("data.derivation", request.table)]
    return load_run(config or "paper", ["run.name=tune", *own, *overrides])


def tune_table(request: TableRequest, run: Run, tell: Tell = silent) -> dict[str, Any]:
    """Search, choose, calibrate and fit.

    Writes into the request's folder: ``model.skops`` (the chosen classifier, see :mod:`sarc_ray.stage2.persist`),
    ``model.json`` (what it is), ``trials.parquet``, ``algorithms.csv`` (the paper's Table S1), ``finalists/``, with
    ``--test`` also ``test_scores.parquet``, and with ``stage2.nested_splits`` also ``nested.csv``. Interrupted, the
    same command goes on from the trials on record; finished and unchanged, it does nothing.

    Returns:
        A record as the verbs of :mod:`sarc_ray.pipeline` give it.

    Raises:
        ConfigError: ``stage2.choice`` asks for an internal test set, or a feature is the outcome or the group.
        EvaluationError: a column is absent or not numeric, a value missing, a label neither 0 nor 1, or too few rows.
        StorageError: a table cannot be read.
    """
    config, seed = run.config.stage2, run.config.run.seed
    if config.choice != "cross_validation":
        raise ConfigError(
            f"stage2.choice: found {config.choice!r}, allowed for a table: cross_validation; a table has no internal "
            "test set to choose on"
        )
    problem = read_problem(request, request.table)
    test = (
        read_problem(request, request.test, names=[str(name) for name in problem.features.columns])
        if request.test
        else None
    )
    content = [_content(part) for part in (problem, test) if part is not None]
    settings = [__version__, content, config, run.config.evaluation, seed]

    def work() -> dict[str, Any]:
        for name in (_NESTED, _TEST_SCORES):  # of another request into the same folder
            storage.remove_tree(storage.join(request.to, name))
        # Records of trials are kept by what decides them; a larger budget goes on from those of a smaller one.
        decisive = [__version__, content[0], stages.settings_of_search(config), seed]
        folder = storage.join(request.to, fingerprint_of(decisive))
        with cluster.session(run.config.engine):
            searched = search_stage2(problem, config, seed=seed, uri=folder, engine=run.config.engine, tell=tell)
            models = fit_finalists(problem, searched, config, seed=seed, tell=tell)
            if config.nested_splits:
                nested = nested_cross_validation(
                    problem, config, seed=seed, uri=folder, engine=run.config.engine, tell=tell
                )
                storage.write_table(storage.join(request.to, _NESTED), nested)
        name = searched.chosen.spec.algorithm
        write_search(request.to, searched, models, chosen=name)
        _write_algorithms(request, run, models, chosen=name, test=test)
        return _write_model(request.to, models[name], auroc=searched.chosen.cv_auroc_mean)

    return run.stage("tune-table", fingerprint=fingerprint_of(settings), work=work, outputs=(MODEL_FILE,))


def read_problem(request: TableRequest, uri: str, *, names: Sequence[str] = ()) -> Problem:
    """Read a table.

    Args:
        request: which columns.
        uri: the table.
        names: features it must have; empty takes the request's, or all columns but outcome and group.

    Raises:
        ConfigError: a feature is the outcome or the group.
        EvaluationError: as :func:`tune_table`.
    """
    frame = _read_table(uri)
    own = [request.outcome, *([request.group] if request.group else [])]
    if request.group == request.outcome:
        raise ConfigError(f"--group: {request.group!r} is the outcome too; name the column that says whose row it is")
    features = list(names or request.features or [name for name in frame.columns if name not in own])
    both = [name for name in features if name in own]
    if both:
        raise ConfigError(f"--features: {both[0]!r} is the outcome or the group too; leave it out of the features")
    if not features:
        raise EvaluationError(f"{uri}: no column is left to learn from; found: {', '.join(map(str, frame.columns))}")
    absent = [name for name in [*own, *features] if name not in frame]
    if absent:
        raise EvaluationError(f"{uri}: column {absent[0]!r} is absent; found: {', '.join(map(str, frame.columns))}")
    outcome_N = _numbers(frame[request.outcome], uri, *_OUTCOMES)
    wrong_N = (outcome_N != 0.0) & (outcome_N != 1.0)
    _refuse(frame[request.outcome], uri, wrong_N, *_OUTCOMES)
    return Problem(
        features=pd.DataFrame({name: _numbers(frame[name], uri, *_NUMBERS) for name in features}),
        outcome_N=outcome_N.astype(np.int64),
        patient_N=_groups(frame[request.group], uri) if request.group else np.arange(len(frame)),
    )


def _read_table(uri: str) -> pd.DataFrame:
    try:
        return storage.read_table(uri)
    except ValueError as error:
        raise EvaluationError(
            f"{uri}: not a readable table ({error}); write UTF-8 CSV with one header line, or Parquet"
        ) from error


def _numbers(column: pd.Series, uri: str, allowed: str, remedy: str) -> npt.NDArray[np.float64]:
    """A column's numbers, true and false as 1 and 0, whether the table is text or typed."""
    if column.dtype.kind in "mM":  # pandas would count nanoseconds
        column = column.astype(str)
    cells = column if column.dtype.kind in "biuf" else column.map(_plain)
    found_N = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse(column, uri, ~(np.abs(found_N) <= _LARGEST), allowed, remedy)
    return found_N


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _TRUTH.get(value.strip().lower(), value)
    return value if pd.api.types.is_scalar(value) else np.nan


def _groups(column: pd.Series, uri: str) -> npt.NDArray[np.object_]:
    """Whose row each is, as text."""
    groups = column.astype(object).where(column.notna(), "").map(lambda value: str(value).strip())
    remedy = "fill it in; rows of nobody in particular would be taken for one patient's"
    _refuse(column, uri, (groups == "").to_numpy(), "whose row it is", remedy)
    return groups.to_numpy(dtype=object)


def _refuse(column: pd.Series, uri: str, wrong_N: npt.NDArray[np.bool_], allowed: str, remedy: str) -> None:
    rows = np.flatnonzero(wrong_N)
    if not rows.size:
        return
    value = column.iloc[rows[0]]
    if isinstance(value, str):
        what = repr(value[:_SHOWN]) if value.strip() else "nothing"
    else:
        what = "nothing" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)[:_SHOWN]
    raise EvaluationError(
        f"{uri}: row {rows[0] + 1}, column {column.name}: found {what}; allowed: {allowed}; {remedy} "
        f"({rows.size} rows in all)"
    )


def _content(problem: Problem) -> str:
    table = problem.features.assign(outcome=problem.outcome_N, patient=problem.patient_N.astype(str))
    hashes = pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes().hex()
    return fingerprint_of([list(problem.features.columns), hashes])


def _write_algorithms(
    request: TableRequest, run: Run, models: dict[str, Stage2Model], *, chosen: str, test: Problem | None
) -> None:
    config = run.config.evaluation
    trials = storage.read_table(storage.join(request.to, "trials.parquet"))
    parts = [cross_validated(trials, confidence_level=config.confidence_level)]
    if test is not None:
        known = pd.DataFrame({"patient_id": test.patient_N, "outcome": test.outcome_N})
        for name, model in models.items():
            raw_N, score_N = model.predict(test.features)
            scored = known.assign(raw_score=raw_N, score=score_N, flag=model.flag(score_N))
            parts.append(
                algorithm_table(
                    scored,
                    algorithm=name,
                    chosen=name == chosen,
                    dataset=_TEST,
                    config=config,
                    seed=run.config.run.seed,
                )
            )
            if name == chosen:
                own = scored.drop(columns="patient_id")
                storage.write_table(storage.join(request.to, _TEST_SCORES), own)
    storage.write_table(storage.join(request.to, "algorithms.csv"), pd.concat(parts, ignore_index=True))


def _write_model(uri: str, model: Stage2Model, *, auroc: float) -> dict[str, Any]:
    """The model's file and what it is; gives the record's facts."""
    facts = {
        "algorithm": model.algorithm,
        "cv_auroc": auroc,
        "threshold": model.threshold,
        "threshold_rule": model.in_force,
    }
    stated = model.stated()
    storage.write_json(
        storage.join(uri, "model.json"),
        {
            **facts,
            "model_sha256": content_hash(model),
            "params": dict(model.params),
            "feature_names": list(model.feature_names),
            "calibration": stated["calibration"],
            "thresholds": stated["thresholds"],
            "sarc_ray": __version__,
        },
    )
    storage.write_bytes(storage.join(uri, MODEL_FILE), to_bytes(model))
    return facts
