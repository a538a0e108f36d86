"""A docstring is a specification: every public function has an example that runs (the suite runs doctests)."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import sarc_ray.stats


def public_functions():
    for module in pkgutil.iter_modules(sarc_ray.stats.__path__):
        loaded = importlib.import_module(f"sarc_ray.stats.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if not name.startswith("_") and function.__module__ == loaded.__name__:
                yield pytest.param(function, id=f"{module.name}.{name}")


@pytest.mark.parametrize("function", list(public_functions()))
def test_every_public_function_has_an_example(function):
    text = inspect.getdoc(function) or ""
    assert ">>> " in text
    assert len(text.splitlines()) >= 3


def test_functions_are_found():
    assert len(list(public_functions())) > 60
