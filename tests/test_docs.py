"""The README and docs/: their examples give what they say, their links lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

from support import require

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
# What the pages of the index link to.
SITE = "https://dropwise.readthedocs.io/en/latest/"
FILES = "https://raw.githubusercontent.com/dropwise/dropwise/main/"

OPTIONAL = {
    "README.md": ["sklearn"],
    "docs/dask.md": ["dask", "xarray"],
    "docs/quickstart.md": ["dask", "sklearn", "torch"],
    "docs/sklearn.md": ["sklearn"],
    "docs/torch.md": ["torch"],
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_in_pages(page):
    for module in OPTIONAL.get(name_of(page), []):
        require(module)
    text = page.read_text(encoding="utf-8").replace("\n```\n", "\n\n")  # the end of what is printed
    examples = doctest.DocTestParser().get_doctest(text, {}, name_of(page), str(page), 0)
    result = doctest.DocTestRunner(optionflags=FLAGS).run(examples)
    assert result.failed == 0
    assert result.attempted or ">>>" not in text


def links_of(page: Path) -> list[str]:
    return re.findall(r'(?:\]\(|src=")([^)#\s"]+)', page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_in_pages_lead_somewhere(page):
    for target in links_of(page):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_links_of_the_readme_work_on_the_index():
    for target in links_of(README):
        if target.startswith(FILES):
            assert (ROOT / target.removeprefix(FILES)).is_file(), target
        elif target == SITE + "gallery/index.html":
            assert (DOCS / "examples/README.rst").is_file()
        else:
            assert target.startswith(SITE), target
            page = target.removeprefix(SITE) or "index.html"
            assert (DOCS / page).with_suffix(".md").is_file(), target


def test_every_picture_is_shown_on_a_page():
    shown = {(page.parent / target).resolve() for page in PAGES for target in links_of(page)}
    pictures = {path for kind in ("svg", "png") for path in DOCS.glob(f"*.{kind}")}
    assert pictures
    assert pictures <= shown


def parts_of(page: Path) -> tuple[list[str], Counter[str], list[int], list[str]]:
    """What a translation keeps: code blocks, code in the text, columns of tables, links."""
    text = page.read_text(encoding="utf-8")
    block = re.compile(r"^```.*?^```$", re.M | re.S)
    prose = block.sub("", text)
    code = Counter(" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose))
    columns = [line.count("|") for line in prose.splitlines() if line.startswith("|")]
    pages = [str((page.parent / link).resolve()) for link in links_of(page)]
    return block.findall(text), code, columns, pages[2:]  # the first two are to the translations


@pytest.mark.parametrize("language", ["ja", "zh"])
def test_a_translation_has_the_code_the_tables_and_the_links_of_the_original(language):
    original, translation = DOCS / "textbooks.md", DOCS / language / "textbooks.md"
    assert parts_of(translation) == parts_of(original)
    others = {name_of(page) for page in DOCS.rglob("textbooks.md") if page != translation}
    linked = {name_of((translation.parent / link).resolve()) for link in links_of(translation)[:2]}
    assert linked == others


API = {
    "dropwise": "core",
    "dropwise.functional": "functional",
    "dropwise.random": "functional",
    "dropwise.dask": "dask",
    "dropwise.sklearn": "sklearn",
    "dropwise.torch": "torch",
    "dropwise.torch.functional": "torch",
    "dropwise.textbook.dlfs": "textbook",
    "dropwise.textbook.nnfs": "textbook",
    "dropwise.textbook.cs231n": "textbook",
}


@pytest.mark.parametrize("module", API)
def test_the_reference_lists_every_public_name(module):
    top = module.split(".")[1:2]
    if top in (["dask"], ["sklearn"], ["torch"]):
        require(top[0])
    page = (DOCS / "api" / f"{API[module]}.md").read_text(encoding="utf-8")
    index = (DOCS / "api/index.md").read_text(encoding="utf-8")
    names = set(importlib.import_module(module).__all__) - {"__version__"}
    modules = {name for name in names if f"{module}.{name}" in index + page}
    assert names - modules <= set(re.findall(r"\w+", page))


@pytest.mark.parametrize("inventory", sorted(DOCS.glob("inventories/*.txt")), ids=lambda p: p.stem)
def test_an_inventory_has_no_name_that_does_not_occur(inventory):
    sources = [*PAGES, *(ROOT / "python").rglob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    names = [line.split()[0] for line in inventory.read_text().splitlines()[3:]]
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []


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
