"""The versions of what matters for a result or an error; read from package metadata, nothing is imported."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sarc_ray import __version__

PACKAGES = (
    *("ray", "torch", "torchvision", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "lightgbm", "xgboost"),
    *("optuna", "shap", "skops", "safetensors", "pydicom", "imagecodecs", "opencv-python-headless", "fsspec", "s3fs"),
    "highdicom",
)
_GIT_LIMIT_S = 10.0


def installed_versions() -> dict[str, str]:
    """Version of this package, Python, the platform and the packages, in this order; ``absent`` where not installed."""
    versions = {"sarc-ray": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def versions_of_installed(names: Sequence[str]) -> dict[str, str]:
    """Version of this package and of those of the named packages that are installed."""
    installed = {str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions()}
    return {"sarc-ray": __version__} | {name: importlib.metadata.version(name) for name in names if name in installed}


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with ``+`` where files differ from it; None without one.

    A job's copy of the working folder, and an installed package, have none.
    """
    root = Path(__file__).parents[1]
    git = shutil.which("git")
    # Another repository further up, in which the package happens to be installed, is not its source.
    if git is None or not (root / ".git").exists():
        return None
    head = _git(git, root, "rev-parse", "HEAD")
    changed = _git(git, root, "status", "--porcelain", "--untracked-files=no")
    return None if head is None else f"{head}{'+' if changed else ''}"


def _git(git: str, root: Path, *arguments: str) -> str | None:
    try:
        # --no-optional-locks: to look is not to write.
        ended = subprocess.run(
            [git, "--no-optional-locks", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_LIMIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout.strip()
