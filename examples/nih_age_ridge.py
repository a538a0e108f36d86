"""Is the ensemble of ``nih_age.yaml`` better than ridge regression on the same frozen features?

    python examples/nih_age_ridge.py

Five folds by patient over every radiograph of the manifest, whatever its split: each is predicted by models that saw
none of that patient. Ridge regression gets standardised features and chooses its penalty within the training patients.
The ensemble gets the same patients: member m stops by the m-th fifth of them and learns from the others. (The pipeline
itself stops all members by one tune split, and holds patients out for stage 2; here there is no stage 2.)
Ridge regression on averages of VGG16's last block, the paper's features, stands beside them.
Features are extracted once and kept under ``runs/``. About a quarter of an hour on two cores.

Shapes: K versions of each picture (the original first), N pictures, F features, M members.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sarc_ray import storage
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.imaging.preprocess import process_image
from sarc_ray.run import RunConfig, fingerprint_of, load_run
from sarc_ray.stage1.ensemble import mixture
from sarc_ray.stage1.features import FeatureArray, extract_features
from sarc_ray.stage1.member import MemberTask, train_member
from sarc_ray.stage1.network import build_network
from sarc_ray.stage1.runtime import ByteArray, derive_seed
from sarc_ray.stats.agreement import concordance
from sarc_ray.stats.bootstrap import bootstrap_statistic
from sarc_ray.stats.uncertainty import inside_interval

FloatArray = npt.NDArray[np.float64]

N_FOLDS = 5
N_PROCESSES = 2
PENALTIES = np.logspace(1, 6, 21)
# Ridge regression on all versions has six times the rows: fewer penalties, around where it wants them.
PENALTIES_VARIED = np.logspace(2.5, 4.5, 5)
PICTURES_PER_CHUNK = 32

console = Console()


def main(config: str = "examples/nih_age.yaml", to: str = "runs/nih_age_ridge") -> None:
    """Compare, show a table, and write ``results.csv`` and ``predictions.csv`` into the folder ``to``."""
    run = load_run(config).config
    target = run.targets[0]
    manifest = read_manifest(run.data.derivation, numeric=[target.name])
    with ProcessPoolExecutor(N_PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        with console.status("reading radiographs and their features"):
            images_NSS = np.concatenate(
                list(pool.map(_read_chunk, _chunks(manifest["image_uri"]), itertools.repeat(run)))
            )
            features_path = _features(pool, run, images_NSS, to)
            last_block_path = _features(pool, _last_block(run), images_NSS, to)
        measured_N = manifest[target.name].to_numpy(dtype=np.float64)
        patient_N = manifest["patient_id"].to_numpy()
        with console.status("five folds"):
            paths = (features_path, last_block_path)
            predictions = _cross_validate(pool, run, images_NSS, paths, measured_N, patient_N)
    table = _compare(run, measured_N, patient_N, predictions)
    storage.write_table(storage.join(to, "results.csv"), table)
    columns = {"row_id": manifest["row_id"], "measured": measured_N, **predictions}
    storage.write_table(storage.join(to, "predictions.csv"), pd.DataFrame(columns))
    _show(table, n=len(measured_N), n_patients=len(np.unique(patient_N)))


def _chunks(values: Sequence[Any] | ByteArray | pd.Series) -> list[Any]:
    return [values[start : start + PICTURES_PER_CHUNK] for start in range(0, len(values), PICTURES_PER_CHUNK)]


def _read_chunk(uris: Sequence[str], run: RunConfig) -> ByteArray:
    results = [process_image(storage.read_bytes(uri), run.preprocess) for uri in uris]
    unread = [str(result.reason) for result in results if result.image_HW is None]
    if unread:
        raise ValueError(f"{len(unread)} radiographs could not be read, first: {unread[0]}; the comparison needs all")
    return np.stack([result.image_HW for result in results if result.image_HW is not None])


def _last_block(run: RunConfig) -> RunConfig:
    """The paper's features: the last block's maps averaged over the whole picture; originals only."""
    network = dataclasses.replace(run.network, feature_blocks=(), pooling_grid=1)
    return dataclasses.replace(run, network=network, augment=dataclasses.replace(run.augment, copies=0))


def _features(pool: ProcessPoolExecutor, run: RunConfig, images_NSS: ByteArray, to: str) -> str:
    """Path of the features (1 + copies, N, F), extracted unless an earlier call did."""
    key = fingerprint_of([run.network, run.augment, run.run.seed, hashlib.sha256(images_NSS.tobytes()).hexdigest()])
    path = Path(to) / f"features-{key}.npy"
    if not path.exists():
        chunks = _chunks(images_NSS)
        parts = list(pool.map(_extract_chunk, chunks, range(len(chunks)), itertools.repeat(run)))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate(parts, axis=1))
    return str(path)


def _extract_chunk(images_BSS: ByteArray, number: int, run: RunConfig) -> FeatureArray:
    return extract_features(
        build_network(run.network, seed=run.run.seed),
        images_BSS,
        config=run.augment,
        copies=run.augment.copies,
        seed=derive_seed(run.run.seed, number),
        batch_size=PICTURES_PER_CHUNK,
        threads=1,
        device=run.fit.device,
    )


def _cross_validate(
    pool: ProcessPoolExecutor,
    run: RunConfig,
    images_NSS: ByteArray,
    feature_paths: tuple[str, str],
    measured_N: FloatArray,
    patient_N: npt.NDArray[Any],
) -> dict[str, FloatArray]:
    """Out-of-fold predictions of every predictor, by name; ``ensemble_sigma`` beside them."""
    features_KNF, last_block_KNF = (np.load(path, mmap_mode="r") for path in feature_paths)
    ridges = {
        "ridge": (features_KNF[:1], PENALTIES),
        "ridge_varied": (features_KNF, PENALTIES_VARIED),
        "ridge_last_block": (last_block_KNF, PENALTIES),
    }
    names = ("ensemble", "ensemble_sigma", "mean", *ridges)
    out = {name: np.full(len(measured_N), np.nan) for name in names}
    folds = list(GroupKFold(N_FOLDS, shuffle=True, random_state=run.run.seed).split(measured_N, groups=patient_N))
    # All members of all folds are under way before the ridge regressions begin.
    waiting = [
        [
            pool.submit(_member, task, images_NSS, feature_paths[0])
            for task in _tasks(run, number, train, measured_N, patient_N)
        ]
        for number, (train, _) in enumerate(folds)
    ]
    for number, (train, test) in enumerate(folds):
        out["mean"][test] = measured_N[train].mean()
        for name, (x_KNF, penalties) in ridges.items():
            predict = _ridge(x_KNF[:, train], measured_N[train], patient_N[train], penalties)
            out[name][test] = predict(x_KNF[0, test])
        results = [future.result() for future in waiting[number]]
        mixed = mixture([mu_N[test] for mu_N, _ in results], [sigma_N[test] for _, sigma_N in results])
        out["ensemble"][test], out["ensemble_sigma"][test] = mixed.mu_N, mixed.sigma_N
        console.print(f"fold {number + 1} of {N_FOLDS} done", highlight=False)
    return out


def _tasks(
    run: RunConfig, fold: int, train: npt.NDArray[np.int64], measured_N: FloatArray, patient_N: npt.NDArray[Any]
) -> list[MemberTask]:
    """Member m stops by the m-th fifth of the training patients, so that together they learn from all of them."""
    fifths = GroupKFold(run.ensemble.members, shuffle=True, random_state=derive_seed(run.run.seed, fold) % 2**32)
    rows = np.arange(len(measured_N))
    return [
        MemberTask(
            index=index,
            seed=derive_seed(run.run.seed, fold),
            fit_N=np.isin(rows, train[learn]),
            tune_N=np.isin(rows, train[stop]),
            targets=run.targets[:1],
            y_TN=measured_N[None],
            network=run.network,
            augment=run.augment,
            fit=run.fit,
        )
        for index, (learn, stop) in enumerate(fifths.split(train, groups=patient_N[train]))
    ]


def _member(task: MemberTask, images_NSS: ByteArray, features_path: str) -> tuple[FloatArray, FloatArray]:
    results = train_member(task, images_NSS, features_KNF=np.load(features_path, mmap_mode="r"))
    result = results[task.targets[0].name]
    return result.mu_N, result.sigma_N


def _ridge(
    features_KNF: FeatureArray, y_N: FloatArray, patient_N: npt.NDArray[Any], penalties: FloatArray
) -> Callable[[FeatureArray], FloatArray]:
    """Ridge regression whose penalty is chosen by five folds of the training patients."""
    n_versions = len(features_KNF)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()),
        {"ridge__alpha": penalties},
        scoring="neg_mean_squared_error",
        cv=GroupKFold(N_FOLDS),
    )
    rows_RF = np.concatenate(list(features_KNF))
    search.fit(rows_RF, np.tile(y_N, n_versions), groups=np.tile(patient_N, n_versions))
    predict: Callable[[FeatureArray], FloatArray] = search.predict
    return predict


def _compare(
    run: RunConfig, measured_N: FloatArray, patient_N: npt.NDArray[Any], predictions: dict[str, FloatArray]
) -> pd.DataFrame:
    """One row per figure, intervals by drawing patients; differences are ensemble less comparator."""
    patient = pd.factorize(patient_N)[0]

    def row(metric: str, predictor: str, statistic: Callable[..., float], *arrays: FloatArray) -> dict[str, Any]:
        interval = bootstrap_statistic(
            statistic,
            [measured_N, *arrays],
            n_boot=run.evaluation.n_boot,
            confidence_level=run.evaluation.confidence_level,
            seed=run.run.seed,
            patient=patient,
        )
        figures = {"estimate": interval.estimate, "ci_low": interval.ci_low, "ci_high": interval.ci_high}
        return {"metric": metric, "predictor": predictor, **figures}

    ensemble_N = predictions["ensemble"]
    others = ("ridge", "ridge_varied", "ridge_last_block")
    rows = [row("mae", name, _mae, predictions[name]) for name in ("ensemble", *others, "mean")]
    rows += [row("ccc", name, _ccc, predictions[name]) for name in ("ensemble", *others)]
    for metric, statistic in (("mae_difference", _mae), ("ccc_difference", _ccc)):
        rows += [
            row(metric, f"ensemble - {name}", _difference(statistic), ensemble_N, predictions[name]) for name in others
        ]
    level = run.evaluation.interval_level
    metric = f"coverage_{100 * level:g}"
    rows.append(row(metric, "ensemble", _coverage(level), ensemble_N, predictions["ensemble_sigma"]))
    return pd.DataFrame(rows)


def _mae(measured_N: FloatArray, mu_N: FloatArray) -> float:
    return float(np.mean(np.abs(mu_N - measured_N)))


def _ccc(measured_N: FloatArray, mu_N: FloatArray) -> float:
    return concordance(measured_N, mu_N, confidence_level=0.95).estimate


def _difference(statistic: Callable[..., float]) -> Callable[..., float]:
    def difference(measured_N: FloatArray, first_N: FloatArray, second_N: FloatArray) -> float:
        return statistic(measured_N, first_N) - statistic(measured_N, second_N)

    return difference


def _coverage(level: float) -> Callable[..., float]:
    def coverage(measured_N: FloatArray, mu_N: FloatArray, sigma_N: FloatArray) -> float:
        return float(np.mean(inside_interval(measured_N, mu_N, sigma_N, level=level)))

    return coverage


def _show(results: pd.DataFrame, *, n: int, n_patients: int) -> None:
    table = Table(title=f"{n} radiographs of {n_patients} patients, out of fold", title_justify="left")
    for name in ("metric", "predictor", "estimate", "95% interval"):
        table.add_column(name, justify="left" if name in ("metric", "predictor") else "right")
    for row in results.itertuples():
        interval = f"{row.ci_low:.3f} to {row.ci_high:.3f}"
        table.add_row(str(row.metric), str(row.predictor), f"{row.estimate:.3f}", interval)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
