"""A contender of the scoring benchmark: what ``sarc-ray score`` calls, with its engine.

python ours.py REQUEST.json
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_LOOK_INTERVAL_S = 0.5


@contextlib.contextmanager
def object_store_watched(peak: list[float]) -> Iterator[None]:
    """Note the most bytes of Ray's object store that were in use at one time, while the block runs."""
    import ray

    stop = threading.Event()

    def look() -> None:
        while not stop.wait(_LOOK_INTERVAL_S):
            with contextlib.suppress(Exception):  # Ray is not up yet, or no longer
                if ray.is_initialized():
                    total, free = ray.cluster_resources(), ray.available_resources()
                    peak.append(total["object_store_memory"] - free.get("object_store_memory", 0.0))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def main() -> None:
    started = time.perf_counter()
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    from sarc_ray import storage, tables, watching
    from sarc_ray.scoring_request import ScoringRequest, load_run_for, score_request

    asked = ScoringRequest(bundle=request["bundle"], manifest=request["manifest"], table=request["table"])
    run = load_run_for(asked, None, request["settings"])
    import_s = time.perf_counter() - started
    peak: list[float] = []
    with object_store_watched(peak) if request["watch_object_store"] else contextlib.nullcontext():
        record = score_request(asked, run)
    pointer = tables.read_pointer(request["table"])
    answer = {
        "import_s": import_s,
        "call_s": record["seconds"],
        "counts": pointer.counts,
        "summary": storage.read_json(watching.summary_uri(request["table"], pointer.version)),
        "driver_cpu_s": time.process_time(),
        "object_store_peak_bytes": max(peak, default=None),
    }
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
