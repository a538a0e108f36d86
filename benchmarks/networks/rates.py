"""What a device can do, and what a network asks of it: floating-point operations."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def forward_flops(network: nn.Module, *, size_px: int) -> int:
    """Operations of one picture's way through a network; a multiplication with its addition is two."""
    device = next(network.parameters()).device
    x_BCHW = torch.zeros(1, 3, size_px, size_px, device=device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(x_BCHW)
    return counter.get_total_flops()


def bf16_matrix_rate(device: torch.device, *, side: int, seconds: float) -> float:
    """Operations per second of square bfloat16 matrix products: what can be had of this device, not its data sheet."""
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ b
    wait(device)
    n, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for _ in range(10):
            a @ b
        wait(device)
        n += 10
    return n * 2 * side**3 / (time.perf_counter() - begin)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
