"""The usual way, as a reference: a DataLoader that decodes each file when it is asked for it, and a loop over it.

Shape suffixes: B pictures of a batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom
import torch
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from sarc_ray.stage1.network import IMAGENET_MEAN, IMAGENET_SD

WORKERS = 2


def read_picture(path: Path, *, size_px: int, clahe_clip_limit: float, clahe_tiles: int) -> np.ndarray:
    """Decode a file with pydicom; window, resize and equalise with NumPy and OpenCV: uint8, (H, W)."""
    dataset = pydicom.dcmread(path)
    grey_HW = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float32)
    low, high = grey_HW.min(), grey_HW.max()
    grey_HW = (grey_HW - low) / max(high - low, 1.0)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey_HW = 1.0 - grey_HW
    small_HW = (cv2.resize(grey_HW, (size_px, size_px), interpolation=cv2.INTER_AREA) * 255.0).astype(np.uint8)
    return cv2.createCLAHE(clahe_clip_limit, (clahe_tiles, clahe_tiles)).apply(small_HW)


class Files(Dataset):
    """Pictures decoded on demand."""

    def __init__(self, paths: Sequence[Path], y_N: np.ndarray, *, augment: bool, reading: dict):
        steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        if augment:
            steps += [
                v2.RandomAffine(degrees=5, translate=(0.05, 0.05), scale=(0.95, 1.05)),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.05),
            ]
        steps += [v2.Grayscale(3), v2.Normalize(IMAGENET_MEAN, IMAGENET_SD)]
        self.paths, self.y_N, self.reading = list(paths), torch.from_numpy(y_N).float(), reading
        self.transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        cv2.setNumThreads(1)
        return self.transform(read_picture(self.paths[index], **self.reading)), self.y_N[index]


class Pictures(Dataset):
    """Pictures in memory, normalised one by one."""

    def __init__(self, x_NHW: np.ndarray):
        self.x_NHW = x_NHW
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Grayscale(3),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_SD),
            ]
        )

    def __len__(self) -> int:
        return len(self.x_NHW)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(self.x_NHW[index])


def train_epochs(
    network: nn.Module, train: Files, tune: Files, *, epochs: int, batch_size: int, learning_rate: float
) -> list[float]:
    """Seconds of each epoch: a pass over the training files with Adam, then the loss of the tuning files."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device, memory_format=torch.contiguous_format)
    optimizer, loss_of = torch.optim.Adam(network.parameters(), lr=learning_rate), nn.GaussianNLLLoss()
    pin = device.type == "cuda"
    # Started anew, not forked: Ray and torch hold threads and locks in this process, and a fork of it waits for ever.
    # Kept between epochs, and started before the clock: a long training does not feel their start.
    workers = {"num_workers": WORKERS, "multiprocessing_context": "spawn", "persistent_workers": True}
    train_loader = DataLoader(train, batch_size, shuffle=True, pin_memory=pin, **workers)
    tune_loader = DataLoader(tune, batch_size, pin_memory=pin, **workers)
    for loader in (train_loader, tune_loader):
        next(iter(loader))
    mean, sd = train.y_N.mean(), train.y_N.std()
    seconds = []
    for _ in range(epochs):
        begin = time.perf_counter()
        network.train()
        for x_BCHW, y_B in train_loader:
            mu_B, sigma_B = network(x_BCHW.to(device, non_blocking=True))
            loss = loss_of(mu_B, ((y_B - mean) / sd).to(device), sigma_B.square())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for x_BCHW, y_B in tune_loader:
                mu_B, sigma_B = network(x_BCHW.to(device, non_blocking=True))
                float(loss_of(mu_B, ((y_B - mean) / sd).to(device), sigma_B.square()))
        seconds.append(time.perf_counter() - begin)
    return seconds


def predict_one_by_one(
    networks: Sequence[nn.Module], x_NHW: np.ndarray, *, batch_size: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Standardised mu_MN and sigma_MN: each batch is made once, then every network runs on it, whole.

    No workers load: the pictures lie in memory, and on a CPU workers would only take cores from the networks.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads)
    parts = []
    with torch.inference_mode():
        for x_BCHW in DataLoader(Pictures(x_NHW), batch_size):
            x_BCHW = x_BCHW.to(device)
            answers = [torch.stack(network(x_BCHW)) for network in networks]
            parts.append(torch.stack(answers, dim=1).cpu().numpy())
    return tuple(np.concatenate(parts, axis=2))
