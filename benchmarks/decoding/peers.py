"""Environments of the peers: made on first use under `benchmarks/.peers`, with exact versions.

They see the packages of the environment that made them (torch, pydicom and its plugins, OpenCV; scikit-learn, XGBoost,
LightGBM), so that all contenders decode with the same codecs and fit the same models, and the disk holds torch once.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".peers"
PINS = {
    # itk-io instead of all of itk: LoadImage needs no more, and it saves a gigabyte.
    "monai": ("monai==1.6.1", "itk-io==5.4.7", "itk-core==5.4.7"),
    "torchxrayvision": ("torchxrayvision==1.5.7", "scikit-image==0.26.0"),
    "flaml": ("flaml==2.7.0",),
    "confidenceinterval": ("confidenceinterval==1.0.5",),
}
ENVIRONMENTS = {
    "MONAI (pydicom)": "monai",
    "MONAI (ITK)": "monai",
    "torchxrayvision": "torchxrayvision",
    "FLAML": "flaml",
    "confidenceinterval": "confidenceinterval",
}


def python_of(contender: str) -> Path:
    """The interpreter that runs a contender; peers' may not exist yet."""
    name = ENVIRONMENTS.get(contender)
    return Path(sys.executable) if name is None else FOLDER / name / "bin" / "python"


def install(name: str) -> None:
    """Make a peer's environment unless it is there.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    folder = FOLDER / name
    ready = folder / ".ready"
    if ready.exists() and ready.read_text() == "\n".join(PINS[name]):
        return
    venv.EnvBuilder(with_pip=True, clear=True).create(folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shared = folder / "lib" / version / "site-packages" / "shared.pth"
    shared.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *PINS[name]]
    subprocess.run(command, check=True, capture_output=True, text=True)
    ready.write_text("\n".join(PINS[name]), encoding="utf-8")
