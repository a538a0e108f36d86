"""Stage 2's search on Ray Tune: all trials of all algorithms in one pool, each finished one on record."""

from __future__ import annotations

import functools
import math
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.cross_validation import Bar, CvResult, Fold, evaluate_against
from sarc_ray.stage2.search import RoundSearch, TrialRecord, TrialSpec

_METRIC = "cv_auroc_mean"
_NUMBERS = (_METRIC, "cv_auroc_se", "oof_f1", "seconds")


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
        The records in trial order, pruned trials among them. The same for any number of workers, but where the plan
        has a limit of time.

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
    trainable = tune.with_parameters(
        _Trial,
        features=features,
        outcome_N=outcome_N,
        folds=tuple(folds),
        seed=seed,
        on_gpu=engine.gpus_per_boosted_trial > 0,
    )
    # One more than run, so that a worker that becomes free need not wait for the next to be asked for.
    slots = engine.trials_at_once or cpu_count() + 1
    # Tune insists on a folder for its own snapshots; ours are the records, so its folder does not outlive the search.
    with tempfile.TemporaryDirectory(prefix="sarc-ray-tune-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Tune warns of deprecations inside itself
        tuner = tune.Tuner(
            tune.with_resources(trainable, functools.partial(_resources, gpus=engine.gpus_per_boosted_trial)),
            tune_config=tune.TuneConfig(
                num_samples=searcher.plan.total,
                max_concurrent_trials=slots,
                search_alg=searcher,
                reuse_actors=True,
                trial_dirname_creator=_short_name,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                verbose=0,
                callbacks=[],
                log_to_file=False,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        tuner.fit()


def _short_name(trial: Any) -> str:
    return str(trial.trial_id)


def _resources(config: Mapping[str, Any], *, gpus: float) -> tune.PlacementGroupFactory:
    """A core for each trial, and for one of boosted trees its share of a GPU where it is to have one."""
    wants_gpu = gpus > 0 and ALGORITHMS[config["algorithm"]].gpu is not None
    return tune.PlacementGroupFactory([{"CPU": 1, **({"GPU": gpus} if wants_gpu else {})}])


class _Trial(tune.Trainable):
    """One trial in a worker: unpack, one pure call, report. A class, since a function takes Tune two calls a trial."""

    def setup(
        self,
        config: dict[str, Any],
        *,
        features: pd.DataFrame,
        outcome_N: np.ndarray,
        folds: Sequence[Fold],
        seed: int,
        on_gpu: bool,
    ) -> None:
        """Keep what is the same for all trials; the worker serves many."""
        # scikit-learn puts up all filters of warnings anew for every tree of a forest, fitted or asked. Ray and what
        # it imports bring some twenty, which cost a forest a tenth of its time.
        warnings.resetwarnings()
        warnings.simplefilter("ignore", category=DeprecationWarning)
        self._table = (features, outcome_N, folds)
        self._seed, self._on_gpu = seed, on_gpu

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Nothing of a trial stays in its worker; ``self.config`` is the next one's already."""
        return True

    def step(self) -> dict[str, Any]:
        """Cross-validate, or give up."""
        started = time.perf_counter()
        config = self.config
        bar = Bar(**config["bar"]) if config["bar"] else None
        result = evaluate_against(
            bar,
            config["algorithm"],
            config["params"],
            *self._table,
            seed=self._seed,
            n_jobs=1,
            on_gpu=self._on_gpu,
        )
        if isinstance(result, CvResult):
            found = {_METRIC: result.cv_auroc_mean, "cv_auroc_se": result.cv_auroc_se, "oof_f1": result.oof_f1}
        else:
            found = {_METRIC: float(result.auroc_per_fold.mean()), "cv_auroc_se": math.nan, "oof_f1": math.nan}
        return {
            **found,
            "auroc_per_fold": list(result.auroc_per_fold),
            "pruned": not isinstance(result, CvResult),
            "seconds": time.perf_counter() - started,
            "done": True,
        }


class _RecordedSearch(Searcher):
    """Feeds Tune from a :class:`RoundSearch` and writes down each result as it comes."""

    def __init__(self, plan: RoundSearch, uri: str, progress: Progress | None) -> None:
        super().__init__(metric=_METRIC, mode="max")
        self.plan = plan
        self.records: dict[str, TrialRecord] = {}
        self.n_failed = 0
        self.first_error = ""
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
        if not self._ready:
            return None
        spec = self._ready.pop(0)
        self._running[trial_id] = spec
        bar = self.plan.bar(spec.key)
        return {
            "algorithm": spec.algorithm,
            "number": spec.number,
            "params": spec.params,
            "bar": asdict(bar) if bar is not None else None,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune tells: keep the record, then let the plan go on."""
        spec = self._running.pop(trial_id)
        if error or not result or _METRIC not in result:
            self.n_failed += 1
            self.first_error = self.first_error or f"trial {spec.key} with {spec.params} failed"
            return
        numbers = {name: float(result[name]) for name in _NUMBERS}
        values = {
            **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
            "auroc_per_fold": [float(v) for v in result["auroc_per_fold"]],
            "pruned": bool(result["pruned"]),
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
        self.records[spec.key] = TrialRecord(
            spec=spec,
            # JSON has no NaN: what a pruned trial does not have is null there.
            **{name: math.nan if values[name] is None else values[name] for name in _NUMBERS},
            auroc_per_fold=tuple(values["auroc_per_fold"]),
            pruned=values["pruned"],
        )
        self.plan.record(self.records[spec.key])
        if self._progress is not None:
            self._progress(len(self.records), self.plan.total)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searchers for a restore of its own; ours goes on from its records instead."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Tune snapshots its searchers; ours has its records."""

    def restore(self, checkpoint_path: str) -> None:
        """See :meth:`save`."""
