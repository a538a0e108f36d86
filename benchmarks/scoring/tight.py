"""A contender of the scoring benchmark: our own functions in a tight loop, one process per core, without an engine.

Each process takes its share of the manifest, fetches one slice ahead while it reads, scores block by block, and writes
its rows once, at the end. No resume, no lock, no seal, no outcome for rows of a process that dies.

    python tight.py REQUEST.json
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa


def work(rows: pa.Table, request: dict[str, Any], target: str) -> int:
    """Score the rows into one file; how many these were."""
    from sarc_ray import storage
    from sarc_ray.bundle import load_bundle
    from sarc_ray.imaging.batch import prepare_and_time
    from sarc_ray.imaging.isolation import ReadLimits
    from sarc_ray.scoring import score_rows

    bundle, engine = load_bundle(request["bundle"]), request["engine"]
    limits = ReadLimits(
        seconds_per_image=engine["seconds_per_image"], mebibytes_per_image=engine["mebibytes_per_image"]
    )
    scored = []
    for start in range(0, len(rows), engine["rows_per_block"]):
        block = rows.slice(start, engine["rows_per_block"])
        images = prepare_and_time(
            block["row_id"].to_pylist(),
            block["image_uri"].to_pylist(),
            bundle.spec.preprocess,
            limits,
            seconds_per_fetch=engine["seconds_per_fetch"],
        )
        for name in bundle.spec.clinical_features:
            images = images.append_column(name, block[name])
        scored.append(score_rows(images, bundle, run_id="tight", threads=engine["scorer_threads"]))
    storage.write_table(target, pa.concat_tables(scored))
    return len(rows)


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    from sarc_ray import storage
    from sarc_ray.cohort.schema import read_manifest
    from sarc_ray.config import load_preset

    manifest = read_manifest(request["manifest"])
    rows = pa.Table.from_pandas(manifest, preserve_index=False)
    request["engine"] = load_preset("paper")["engine"]  # what ours runs with
    n = min(request["processes"], len(rows))
    edges = [len(rows) * k // n for k in range(n + 1)]
    jobs = [
        (rows.slice(edges[k], edges[k + 1] - edges[k]), request, storage.join(request["table"], f"{k}.parquet"))
        for k in range(n)
    ]
    with multiprocessing.get_context("spawn").Pool(n) as pool:
        counts = pool.starmap(work, jobs, chunksize=1)
        pool.close()
        pool.join()  # each ends its reading process
    Path(request["answer"]).write_text(json.dumps({"rows": sum(counts)}), encoding="utf-8")


if __name__ == "__main__":
    main()
