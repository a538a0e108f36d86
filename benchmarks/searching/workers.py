"""joblib's worker processes, started before they are needed, so that their start can be told."""

from __future__ import annotations

import os
import time

from joblib import Parallel, delayed


def start(cores: int) -> float:
    """Start them; later calls with the same number find them running. Seconds that it took."""
    begin = time.perf_counter()
    Parallel(n_jobs=cores)(delayed(os.getpid)() for _ in range(cores))
    return time.perf_counter() - begin
