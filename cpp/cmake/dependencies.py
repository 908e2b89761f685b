"""What dropwise depends on: the provider that pyproject.toml names under [[tool.dynamic-metadata]].

Numba is left out of what is built where one of the environment variables `native-is-certain` is
set: there a build without the native module is an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

_FALSE = {"", "0", "n", "no", "off", "false", "f"}  # as scikit-build-core reads `if.env`


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    certain = any(
        os.environ.get(name, "").lower() not in _FALSE for name in settings["native-is-certain"]
    )
    more = [] if certain else settings["unless-native-is-certain"]
    return {"dependencies": [*settings["always"], *more]}


def dynamic_wheel(settings: Mapping[str, Any]) -> dict[str, bool]:
    """Say in the source distribution that the dependencies of a wheel may differ."""
    return {"dependencies": True}
