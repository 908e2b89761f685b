"""The documentation site.

    python3 -m sphinx -n -W --keep-going docs build/docs -D plot_gallery=0

Without the last option the examples of the gallery run, and the site has their pictures.
"""

from pathlib import Path

import dropwise

HERE = Path(__file__).parent

project = "dropwise"
author = copyright = "The dropwise authors"
version = release = dropwise.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "myst_parser",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["examples/*", "gallery/*.ipynb", "gallery/*.py", "**/sg_execution_times.rst"]
default_role = "autolink"  # names in docstrings are links, if there is something of that name

# ---- pages
highlight_language = "none"  # of blocks that name no language: commands, listings of files
toc_object_entries_show_parents = "hide"
myst_heading_anchors = 3
html_theme = "sphinx_book_theme"
html_title = f"dropwise {release}"
html_theme_options = {"show_navbar_depth": 1, "use_download_button": False}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = False

# ---- docstrings
autodoc_typehints = "none"  # numpydoc has the types in words, with shapes
numpydoc_show_class_members = False  # the template of a class lists them
numpydoc_validation_checks = {
    "all",
    "ES01", "EX01", "SA01", "SA03",  # no section for its own sake
    "GL01",  # the summary stands beside the quotes
    "PR07", "RT03",  # a type with its shape may say it all
    "PR08", "SS05",  # they take a name for a verb, or for a sentence
    "RT01",  # a summary may be all that there is to say of a result
    "RT02",  # "mean, std : ndarray" names two results
}  # fmt: skip
# The arguments of the first are those of the texts; the second is a protocol and has none.
numpydoc_validation_exclude = {r"dropwise\.textbook\.", r"dropwise\.losses\.Loss$"}
# Methods that the users of a class do not call, and attributes that have no page.
nitpick_ignore_regex = [("py:obj", r"_\w+")]

# ---- names of other projects, looked up in short lists of our own: no network is needed
intersphinx_mapping = {
    name: (url, str(HERE / "inventories" / f"{name}.txt"))
    for name, url in {
        "dask": "https://docs.dask.org/en/stable/",
        "numpy": "https://numpy.org/doc/stable/",
        "sklearn": "https://scikit-learn.org/stable/",
        "torch": "https://docs.pytorch.org/docs/stable/",
    }.items()
}

# ---- examples
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
}
