"""A contender of the scoring benchmark: the script that people write.

s3fs, pydicom with the decoders that it finds, NumPy and OpenCV in a DataLoader with a worker for each core; then every
member of the ensemble on each batch, on a GPU where there is one. Networks, scales and stage 2 are those of the bundle;
layers are as they were trained. One failure ends it; it knows no resume, no limit of time or memory, no gate.

    python plain_script.py REQUEST.json

Shape suffixes: B pictures of a batch, C channels, H rows, W columns, M members, N pictures.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import s3fs
import torch
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from sarc_ray import storage
from sarc_ray.bundle import Bundle, load_bundle
from sarc_ray.stage1.checkpoint import trained_from_bytes
from sarc_ray.stage1.ensemble import prediction_columns
from sarc_ray.stage1.network import IMAGENET_MEAN, IMAGENET_SD, empty_network


class Radiographs(Dataset):
    """Pictures of the objects, made when they are asked for."""

    def __init__(self, uris: list[str], *, size_px: int, clip_limit: float, tiles: int):
        self.uris, self.size_px, self.clip_limit, self.tiles = uris, size_px, clip_limit, tiles
        self.store: s3fs.S3FileSystem | None = None
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Grayscale(3),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_SD),
            ]
        )

    def __len__(self) -> int:
        return len(self.uris)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.store is None:  # one for each worker
            self.store = s3fs.S3FileSystem()
        dataset = pydicom.dcmread(io.BytesIO(self.store.cat_file(self.uris[index])))
        return self.transform(self.picture(dataset))

    def picture(self, dataset: pydicom.Dataset) -> np.ndarray:
        """Window, resize, equalise: uint8, (H, W)."""
        values_HW = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        grey_HW = values_HW.astype(np.float32) / (2.0**dataset.BitsStored - 1.0)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            grey_HW = 1.0 - grey_HW
        small_HW = cv2.resize(grey_HW, (self.size_px, self.size_px), interpolation=cv2.INTER_AREA)
        eight_HW = np.rint(small_HW * 255.0).astype(np.uint8)
        return cv2.createCLAHE(self.clip_limit, (self.tiles, self.tiles)).apply(eight_HW)


def load_networks(bundle_uri: str, bundle: Bundle, device: torch.device) -> list[torch.nn.Module]:
    """The members of all targets, in the bundle's order, as plain networks."""
    networks = []
    for target, of_target in zip(bundle.spec.targets, bundle.members, strict=True):
        for k in range(len(of_target)):
            data = storage.read_bytes(storage.join(bundle_uri, "stage1", target.name, f"member-{k:02d}.safetensors"))
            member = trained_from_bytes(data)
            network = empty_network(member.network)
            network.load_state_dict(member.state, assign=True)
            networks.append(network.to(device).eval())
    return networks


def predict(networks: list[torch.nn.Module], loader: DataLoader, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Standardised mu_MN and sigma_MN."""
    batches = []
    with torch.inference_mode():
        for x_BCHW in loader:
            x_BCHW = x_BCHW.to(device)
            answers = [torch.stack(network(x_BCHW)) for network in networks]
            batches.append(torch.stack(answers, dim=1).cpu().numpy())
    mu_MN, sigma_MN = np.concatenate(batches, axis=2)
    return mu_MN, sigma_MN


def score(rows: pd.DataFrame, bundle: Bundle, mu_MN: np.ndarray, sigma_MN: np.ndarray) -> pd.DataFrame:
    """Mixture of each target, and stage 2."""
    scored = rows.copy()
    start = 0
    for target, of_target in zip(bundle.spec.targets, bundle.members, strict=True):
        part = slice(start, start + len(of_target))
        pairs = zip(of_target, mu_MN[part], sigma_MN[part], strict=True)
        restored = [member.scale.restore(mu_N, sigma_N) for member, mu_N, sigma_N in pairs]
        mu, sigma = (np.stack(values) for values in zip(*restored, strict=True))
        scored = scored.assign(**prediction_columns(target.name, mu, sigma, positive=target.positive))
        start = part.stop
    _, scored["score"] = bundle.stage2.predict(bundle.features(scored))
    return scored


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = pd.read_parquet(request["manifest"])
    bundle = load_bundle(request["bundle"])
    preprocess = bundle.spec.preprocess
    pictures = Radiographs(
        rows["image_uri"].tolist(),
        size_px=preprocess.size_px,
        clip_limit=preprocess.clahe_clip_limit,
        tiles=preprocess.clahe_tiles,
    )
    networks = load_networks(request["bundle"], bundle, device)
    loader = DataLoader(
        pictures, batch_size=bundle.spec.batch_size, num_workers=os.cpu_count() or 1, pin_memory=device.type == "cuda"
    )
    mu_MN, sigma_MN = predict(networks, loader, device)
    score(rows, bundle, mu_MN, sigma_MN).to_parquet(request["table"])
    answer = {"workers": loader.num_workers, "device": device.type}
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
