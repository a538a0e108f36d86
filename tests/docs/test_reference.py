"""The reference is made from the code, and the recipe states the values of the preset that it explains."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

from sarc_ray.config import load_preset

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_KEY_AND_VALUE = re.compile(r"`([a-z0-9_]+)\.([a-z0-9_]+): ([^`]+)`")


def load_script():
    # Loaded from its file: another distribution may own the name "docs". Its neighbour is found as if it were started.
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(DOCS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DOCS))
    return module


@pytest.fixture(scope="module")
def make_reference():
    return load_script()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_generated_tables_are_what_the_code_says(make_reference, page):
    text = page.read_text(encoding="utf-8")
    assert make_reference.update(text) == text, "run: python docs/make_reference.py"


def test_each_generated_table_is_on_one_page(make_reference):
    markers = re.findall(r"<!-- generated: ([a-z-]+) -->", "".join(p.read_text(encoding="utf-8") for p in PAGES))
    assert sorted(markers) == sorted(make_reference.TABLES)


def test_a_stale_table_is_noticed(make_reference):
    text = (DOCS / "reference" / "outcomes.md").read_text(encoding="utf-8")
    stale = text.replace("`not_dicom`", "`no_dicom`")
    assert stale != text
    assert make_reference.update(stale) == text


def test_a_docstring_gives_the_meaning_of_each_attribute(make_reference):
    class Example:
        """One line.

        Args:
            first: what it is,
                on two lines.
            second: with ``code``: and a colon.

        Raises:
            ValueError: never.
        """

    expected = {"first": "what it is, on two lines", "second": "with `code`: and a colon"}
    assert make_reference.describe_attributes(Example) == expected


def test_the_recipe_states_the_values_of_the_preset_paper():
    preset = load_preset("paper")
    stated = _KEY_AND_VALUE.findall((DOCS / "reference" / "recipe.md").read_text(encoding="utf-8"))
    assert len(stated) > 30
    for section, key, value in stated:
        assert yaml.safe_load(value) == preset[section][key], f"{section}.{key}"


def test_the_recipe_leaves_no_key_of_the_method_out():
    preset = load_preset("paper")
    text = (DOCS / "reference" / "recipe.md").read_text(encoding="utf-8")
    stated = {(section, key) for section, key, _ in _KEY_AND_VALUE.findall(text)}
    for section in ("eligibility", "split", "preprocess", "network", "augment", "ensemble", "stage2"):
        assert {(section, key) for key in preset[section]} <= stated, section


TEXTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    paths = [link.split("#")[0] for link in links if "://" not in link]
    assert [path for path in paths if path and not (page.parent / path).exists()] == []


def test_the_architecture_page_names_every_room():
    text = (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "sarc_ray"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {room for room in rooms - {"__init__", "presets"} if f"`{room}`" not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_pages_are_ascii(page):
    assert page.read_text(encoding="utf-8").isascii()
