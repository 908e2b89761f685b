"""The README and docs/: their examples give what they say, their links lead somewhere."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from support import require

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


OPTIONAL = {"dask.md": ("dask", "xarray"), "sklearn.md": ("sklearn",), "torch.md": ("torch",)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_in_pages(page):
    for module in OPTIONAL.get(page.name, ()):
        require(module)
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
