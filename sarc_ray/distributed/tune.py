"""Stage 2's search on Ray Tune: all trials of all algorithms in one pool, each finished one on record."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ray import tune
from ray.tune.search import Searcher

from sarc_ray import storage
from sarc_ray.distributed.cluster import cpu_count
from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.distributed.stream import Progress
from sarc_ray.errors import TrainingError
from sarc_ray.stage2.cross_validation import Fold, evaluate_params
from sarc_ray.stage2.search import RoundSearch, TrialSpec

_METRIC = "cv_auroc_mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One finished trial, as kept in ``trials/<key>.json`` of the search's folder."""

    spec: TrialSpec
    cv_auroc_mean: float
    cv_auroc_se: float
    oof_f1: float
    auroc_per_fold: tuple[float, ...]
    seconds: float


def search(
    features: pd.DataFrame,
    outcome_N: np.ndarray,
    *,
    plan: RoundSearch,
    folds: Sequence[Fold],
    seed: int,
    uri: str,
    engine: EngineConfig,
    progress: Progress | None = None,
) -> list[TrialRecord]:
    """Evaluate every trial of ``plan``.

    Args:
        features: shape (N, F), float64.
        outcome_N: shape (N,), 0 or 1.
        plan: asks for trials and is told their results; used up by this call.
        folds: the same for all trials.
        seed: of the estimators.
        uri: folder of the records; trials recorded there by an interrupted search are not run again.
        engine: trials at one time.
        progress: called with (trials done, trials in all).

    Returns:
        The records in trial order. The same for any number of workers.

    Raises:
        TrainingError: a trial failed; the finished ones stay on record.
    """
    searcher = _RecordedSearch(plan, storage.join(uri, "trials"), progress)
    if not plan.finished:
        _run(searcher, features, outcome_N, folds=folds, seed=seed, engine=engine)
    if not plan.finished:
        raise TrainingError(
            f"stage 2 search: {len(searcher.records)} of {plan.total} trials finished, "
            f"{searcher.n_failed} failed; {searcher.first_error or 'no worker was free'}. "
            "Run the same command again: finished trials are kept"
        )
    return [searcher.records[key] for key in sorted(searcher.records)]


def _run(
    searcher: _RecordedSearch,
    features: pd.DataFrame,
    outcome_N: np.ndarray,
    *,
    folds: Sequence[Fold],
    seed: int,
    engine: EngineConfig,
) -> None:
    trainable = tune.with_parameters(_trial, features=features, outcome_N=outcome_N, folds=tuple(folds), seed=seed)
    searcher.slots = engine.trials_at_once or cpu_count()
    # Tune insists on a folder for its own snapshots; ours are the records, so its folder does not outlive the search.
    with tempfile.TemporaryDirectory(prefix="sarc-ray-tune-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Tune warns of deprecations inside itself
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                num_samples=searcher.plan.total,
                search_alg=searcher,
                reuse_actors=True,
                trial_dirname_creator=_short_name,
            ),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0, callbacks=[], log_to_file=False),
        )
        tuner.fit()


def _short_name(trial: Any) -> str:
    return str(trial.trial_id)


def _trial(
    config: Mapping[str, Any], *, features: pd.DataFrame, outcome_N: np.ndarray, folds: Sequence[Fold], seed: int
) -> None:
    """One trial in a worker: unpack, one pure call, report."""
    started = time.perf_counter()
    result = evaluate_params(config["algorithm"], config["params"], features, outcome_N, folds, seed=seed, n_jobs=1)
    tune.report(
        {
            _METRIC: result.cv_auroc_mean,
            "cv_auroc_se": result.cv_auroc_se,
            "oof_f1": result.oof_f1,
            "auroc_per_fold": list(result.auroc_per_fold),
            "seconds": time.perf_counter() - started,
        }
    )


class _RecordedSearch(Searcher):
    """Feeds Tune from a :class:`RoundSearch` and writes down each result as it comes."""

    def __init__(self, plan: RoundSearch, uri: str, progress: Progress | None) -> None:
        super().__init__(metric=_METRIC, mode="max")
        self.plan = plan
        self.records: dict[str, TrialRecord] = {}
        self.n_failed = 0
        self.first_error = ""
        self.slots = 1
        self._uri = uri
        self._progress = progress
        self._running: dict[str, TrialSpec] = {}
        self._ready: list[TrialSpec] = []
        self._known = {path.rsplit("/", 1)[-1].removesuffix(".json"): path for path in storage.list_files(uri, ".json")}
        self._replay()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Tune asks: a configuration, ``None`` for "wait", or FINISHED."""
        if self.plan.finished or self.n_failed:
            return Searcher.FINISHED
        if not self._ready or len(self._running) >= self.slots:
            return None
        spec = self._ready.pop(0)
        self._running[trial_id] = spec
        return {"algorithm": spec.algorithm, "number": spec.number, "params": spec.params}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune tells: keep the record, then let the plan go on."""
        spec = self._running.pop(trial_id)
        if error or not result or _METRIC not in result:
            self.n_failed += 1
            self.first_error = self.first_error or f"trial {spec.key} with {spec.params} failed"
            return
        values = {
            "cv_auroc_mean": float(result[_METRIC]),
            "cv_auroc_se": float(result["cv_auroc_se"]),
            "oof_f1": float(result["oof_f1"]),
            "auroc_per_fold": [float(v) for v in result["auroc_per_fold"]],
            "seconds": float(result["seconds"]),
        }
        storage.write_json(storage.join(self._uri, f"{spec.key}.json"), {"params": spec.params, **values})
        self._take(spec, values)
        self._replay()

    def _replay(self) -> None:
        """Queue what is next; trials on record are told at once."""
        while (spec := self.plan.next()) is not None:
            path = self._known.get(spec.key)
            record = storage.read_json(path) if path else None
            if record is not None and record.pop("params") == spec.params:
                self._take(spec, record)
            else:
                self._ready.append(spec)

    def _take(self, spec: TrialSpec, values: Mapping[str, Any]) -> None:
        per_fold = tuple(values["auroc_per_fold"])
        self.records[spec.key] = TrialRecord(spec=spec, **{**values, "auroc_per_fold": per_fold})
        self.plan.record(spec.key, values[_METRIC])
        if self._progress is not None:
            self._progress(len(self.records), self.plan.total)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searchers for a restore of its own; ours goes on from its records instead."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Tune snapshots its searchers; ours has its records."""

    def restore(self, checkpoint_path: str) -> None:
        """See :meth:`save`."""
