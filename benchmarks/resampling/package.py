"""The package confidenceinterval. Arguments: folder of rows.npz, replicates; prints seconds and limits as JSON."""

import json
import sys
import time
from pathlib import Path

import confidenceinterval as ci
import numpy as np

rows, n_boot = np.load(Path(sys.argv[1]) / "rows.npz"), int(sys.argv[2])
label, score, flag = rows["label"], rows["score"], rows["flag"].astype(int)
settings = {"confidence_level": 0.95, "method": "bootstrap_percentile", "n_resamples": n_boot}
begin = time.perf_counter()
found = {
    "auroc": ci.roc_auc_score(label, score, **settings),
    "f1": ci.f1_score(label, flag, average="binary", **settings),
    "sensitivity": ci.tpr_score(label, flag, **settings),
    "specificity": ci.tnr_score(label, flag, **settings),
    "ppv": ci.ppv_score(label, flag, **settings),
    "npv": ci.npv_score(label, flag, **settings),
}
seconds = time.perf_counter() - begin
print(
    json.dumps(
        {"seconds": seconds, "limits": {name: [float(x) for x in limits] for name, (_, limits) in found.items()}}
    )
)
