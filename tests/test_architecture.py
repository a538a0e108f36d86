"""The house: who may import whom. Layers that must not need torch or ray are imported where these are forbidden."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sarc_ray"

# Imports point to the left only; rooms of one group may use each other as far as Python can load them.
ORDER = (
    ("errors",),
    ("config", "storage", "store_errors", "privacy", "object_server", "exits", "versions", "instruments"),
    ("tables", "table_lock", "table_reuse", "watching", "telling"),
    ("cohort", "stats"),
    ("imaging",),
    ("simulate",),
    ("stage1", "stage2", "judging"),
    ("evaluation", "drift"),
    ("report",),
    ("bundle", "bundle_parts", "model_card"),
    ("scoring", "exporting"),
    ("distributed",),
    ("tuning",),
    ("run",),
    ("intake", "stages", "plans"),
    ("run_stage2", "bundle_scoring"),
    ("checkup",),
    ("ladder",),
    ("evaluating", "sensitivity"),
    ("pipeline", "reporting", "verifying", "held_out", "explaining", "recalibrating", "distilling"),
    ("site_figures",),
    (
        "demo",
        "proof",
        "screen",
        "scoring_request",
        "table_tuning",
        "external_site",
        "job",
        "inventory",
        "inspection",
        "planning",
        "population",
        "drifting",
    ),
    ("cli",),
)
LEVEL = {room: level for level, group in enumerate(ORDER) for room in group}
WITHOUT_TORCH = ("cohort", "stats", "imaging", "simulate", "stage2", "evaluation", "drift", "report")
WITHOUT_RAY = (
    *WITHOUT_TORCH,
    "stage1",
    "bundle",
    "bundle_parts",
    "scoring",
    "exporting",
    "tables",
    "table_lock",
    "table_reuse",
    "watching",
    "instruments",
    "privacy",
    "object_server",
    "reporting",
    "held_out",
    "explaining",
    "recalibrating",
)


def modules(room: str) -> list[str]:
    folder = PACKAGE / room
    if folder.is_dir():
        return [f"sarc_ray.{room}"] + [f"sarc_ray.{room}.{path.stem}" for path in sorted(folder.glob("[a-z]*.py"))]
    return [f"sarc_ray.{room}"]


def import_without(names: list[str], forbidden: list[str]) -> subprocess.CompletedProcess[str]:
    """Import modules in a process in which the forbidden packages cannot be imported."""
    code = (
        "import sys, importlib\n"
        "class Forbid:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {forbidden!r}: raise ImportError(name + ' is forbidden here')\n"
        "sys.meta_path.insert(0, Forbid())\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_every_room_has_a_level():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "presets"} == set(LEVEL)


def test_rooms_without_torch_and_ray():
    names = [module for room in WITHOUT_TORCH for module in modules(room)]
    # shap and xgboost look for torch by themselves and do without it.
    result = import_without(names, ["torch", "torchvision", "ray"])
    assert result.returncode == 0, result.stderr


def test_rooms_without_ray():
    result = import_without([module for room in WITHOUT_RAY for module in modules(room)], ["ray"])
    assert result.returncode == 0, result.stderr


def test_who_scores_or_reads_settings_waits_for_no_library_of_learning():
    """The workers import them; the process that hands out the work, and every command line, must not."""
    names = ["sarc_ray.run", "sarc_ray.scoring_request", "sarc_ray.screen", "sarc_ray.cli"]
    result = import_without(names, ["torch", "torchvision", "sklearn", "skops", "matplotlib"])
    assert result.returncode == 0, result.stderr


def test_the_probe_can_fail():
    assert import_without(["sarc_ray.stage1.network"], ["torch"]).returncode != 0
    assert import_without(["sarc_ray.distributed.cluster"], ["ray"]).returncode != 0


def imported_rooms(path: Path) -> set[str]:
    """Rooms of ours that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "sarc_ray" and len(parts) > 1:
                found.add(parts[1])
    return found & set(LEVEL)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "presets"):
        assert imported_rooms(path) == set()
        return
    if path.name == "settings.py" and room == "distributed":
        assert imported_rooms(path) <= {"errors"}
    for other in imported_rooms(path) - {room}:
        assert LEVEL[other] <= LEVEL[room], f"{path} imports {other}, which is above {room}"


def test_only_the_engine_imports_ray():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        if "distributed" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "ray" for name in names), path


def test_only_storage_imports_fsspec():
    for path in PACKAGE.rglob("*.py"):
        if path.name != "storage.py":
            assert "fsspec" not in {
                alias.name.split(".")[0]
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Import)
                for alias in node.names
            }, path


def test_modules_and_functions_stay_small():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                code_lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
                assert code_lines <= 50, f"{path}: {node.name} has {code_lines} lines of code"


def test_help_is_instant_because_nothing_heavy_is_imported():
    result = import_without(["sarc_ray.cli"], ["torch", "ray", "pandas", "numpy", "sklearn", "fsspec", "pyarrow"])
    assert result.returncode == 0, result.stderr
