"""The documentation site.

    python3 -m sphinx -n -W --keep-going docs build/docs -D plot_gallery=0

Without the last option the examples of the gallery run, and the site has their pictures.
"""

import dropwise

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
exclude_patterns = ["build", "gallery/*.ipynb", "gallery/*.py", "**/sg_execution_times.rst"]

default_role = "autolink"  # names in docstrings are links, if there is something of that name

# ---- pages
myst_heading_anchors = 3

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
# The arguments of these are those of the texts.
numpydoc_validation_exclude = {r"dropwise\.textbook\."}
