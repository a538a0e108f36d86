"""Ours: nine metrics at once. Arguments: folder of rows.npz, replicates; prints seconds and limits as JSON."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from sarc_ray.stats.bootstrap import bootstrap_metrics

rows, n_boot = np.load(Path(sys.argv[1]) / "rows.npz"), int(sys.argv[2])
begin = time.perf_counter()
found = bootstrap_metrics(
    rows["label"],
    rows["score"],
    rows["flag"],
    n_boot=n_boot,
    confidence_level=0.95,
    seed=1,
    patient=rows["patient"],
)
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "limits": {name: [i.ci_low, i.ci_high] for name, i in found.items()}}))
