"""One contender of the search benchmark, in a process of its own: a folder with a task in, what was found out.

python contender.py NAME FOLDER        (NAME of CONTENDERS; the interpreter decides which libraries there are)
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

# Modules, so that a contender imports its own libraries and no other's.
CONTENDERS = {
    "sarc-ray": "searching.ours",
    "scikit-learn": "searching.scikit",
    "Optuna": "searching.plain_optuna",
    "FLAML": "searching.flaml_peer",
}


def main() -> None:
    # At the end: some scripts beside this folder are named like modules of Python.
    sys.path.append(str(Path(__file__).parents[1]))
    contender = importlib.import_module(CONTENDERS[sys.argv[1]])
    folder = Path(sys.argv[2])
    contender.search(importlib.import_module("searching.task").Task.read(folder)).write(folder)


if __name__ == "__main__":
    main()
