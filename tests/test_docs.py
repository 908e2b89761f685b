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


OPTIONAL = {"sklearn.md": "sklearn", "torch.md": "torch"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_in_pages(page):
    if page.name in OPTIONAL:
        require(OPTIONAL[page.name])
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


def test_every_fault_names_tests_that_exist():
    text = (ROOT / "docs/reliability.md").read_text()
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert re.search(rf"^(def|class) {name}\(", (ROOT / path).read_text(), re.M), (path, name)
    faults = [line for line in text.partition("## Faults")[2].splitlines() if line[:2] == "| "]
    rows = [line for line in faults if not line.startswith(("| fault |", "| target |"))]
    assert len(rows) > 20
    assert [row for row in rows if "::" not in row] == []
