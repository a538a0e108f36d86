"""The versions of what matters for a result or an error; read from package metadata, nothing is imported."""

from __future__ import annotations

import importlib.metadata
import platform

from sarc_ray import __version__

PACKAGES = (
    *("ray", "torch", "torchvision", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "lightgbm", "xgboost"),
    *("optuna", "shap", "skops", "safetensors", "pydicom", "imagecodecs", "opencv-python-headless", "fsspec", "s3fs"),
)


def installed_versions() -> dict[str, str]:
    """Version of this package, Python, the platform and the packages, in this order; ``absent`` where not installed."""
    versions = {"sarc-ray": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions
