"""On paper: what 1,000 GPUs would ask of the rest, from constants that the other sections measured.

Nothing here was measured at that size. Each limit is computed as if the others did not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

GPUS = 1000
# Assumed, not measured: 15 networks of VGG16 at 224 pixels are 0.46 TFLOP a picture; half of 1 PFLOP/s in bfloat16, a
# GPU of the H200's class without sparsity, makes about 1,000 pictures a second.
PICTURES_PER_GPU_S = 1000.0
# "at least 5,500 GET/HEAD and 3,500 PUT requests per second per partitioned prefix" (Amazon S3 user guide, Optimizing
# performance).
GETS_PER_PREFIX_S = 5500.0
# Ray's own release test many_tasks: 10,000 tasks on 2,500 CPUs, 444 (2.8) and 582 (2.20) tasks per second.
TASKS_PER_S = 582.0
# Of a block: reading of its rows, the map that fetches and decodes, the ensemble, the writing of its part.
TASKS_PER_BLOCK = 4
ROWS_PER_BLOCK = 64
LARGE_BLOCK = 1024
NODE_BYTES_PER_S = 100e9 / 8
# What the sections note, and who notes it.
NEEDED = {
    "cpu_s": "e",
    "bytes": "e",
    "driver_cpu_s": "c",
    "sealing_s": "c",
}


def limits(constants: Mapping[str, float]) -> Sequence[Sequence[str]]:
    """Rows of a table: what, its constant, what one of it feeds, how many 1,000 GPUs need.

    Args:
        constants: ``cpu_s`` (core seconds to fetch, decode and preprocess a picture), ``bytes`` (of an object),
            ``driver_cpu_s`` and ``sealing_s`` (of the driver, per row).
    """
    wanted = GPUS * PICTURES_PER_GPU_S
    tasks_rate = TASKS_PER_S / TASKS_PER_BLOCK
    found = [
        ("a core that fetches and decodes", f"{1000 * constants['cpu_s']:.1f} ms a picture", 1 / constants["cpu_s"]),
        (
            "a node's line of 100 Gbit/s",
            f"{constants['bytes'] / 1e6:.1f} MB a picture",
            NODE_BYTES_PER_S / constants["bytes"],
        ),
        ("a partitioned prefix of S3", f"one GET a picture, {GETS_PER_PREFIX_S:,.0f}/s", GETS_PER_PREFIX_S),
        ("the driver's process", f"{1000 * constants['driver_cpu_s']:.3f} ms a row", 1 / constants["driver_cpu_s"]),
        (
            f"Ray's scheduling, {ROWS_PER_BLOCK} rows a block",
            f"{TASKS_PER_BLOCK} tasks a block, {TASKS_PER_S:.0f}/s",
            tasks_rate * ROWS_PER_BLOCK,
        ),
        (
            f"Ray's scheduling, {LARGE_BLOCK:,} rows a block",
            f"{TASKS_PER_BLOCK} tasks a block, {TASKS_PER_S:.0f}/s",
            tasks_rate * LARGE_BLOCK,
        ),
        ("the seal, after the stream", f"{1000 * constants['sealing_s']:.3f} ms a row", 1 / constants["sealing_s"]),
    ]
    return [
        [what, constant, f"{rate:,.0f}", f"{rate / PICTURES_PER_GPU_S:,.2f}", f"{wanted / rate:,.0f}"]
        for what, constant, rate in found
    ]
