"""The examples in docstrings, the README and docs/ run and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import dropwise as dw
from support import require

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def modules():
    """All modules of the package, but for the compiled one and the way in."""
    names = [m.name for m in pkgutil.walk_packages(dw.__path__, "dropwise.")]
    return [n for n in names if not n.endswith(("_native", "__main__", "_threadpoolctl"))]


@pytest.mark.parametrize("name", ["dropwise", *modules()])
def test_examples_in_docstrings(name):
    if name.endswith("native"):
        require("dropwise._native")
    assert doctest.testmod(importlib.import_module(name), optionflags=FLAGS).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_in_pages(page):
    result = doctest.testfile(str(page), module_relative=False, optionflags=FLAGS)
    assert result.failed == 0
    assert result.attempted or ">>>" not in page.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_in_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_has_its_two_commands():
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```\n(python3 -m pip .*?)^```", text, re.M | re.S)
    assert blocks == [
        'python3 -m pip install ".[cli]" && python3 -m dropwise spiral\n',
        'python3 -m pip install ".[test]" && python3 -m pytest\n',
    ]
