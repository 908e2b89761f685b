"""The examples in the docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import dropwise
from support import require

OPTIONAL = {
    "dropwise._backends": "numba",  # whose examples list both
    "dropwise._backends.numba": "numba",
    "dropwise.dask": "dask",
    "dropwise.sklearn": "sklearn",
    "dropwise.torch": "torch",
}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(dropwise.__path__, "dropwise.")
    if not module.name.endswith(("._native", ".__main__", "._threadpoolctl"))
)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    if name in OPTIONAL:
        require(OPTIONAL[name])
    if name == "dropwise._backends.native":
        require("dropwise._native")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
