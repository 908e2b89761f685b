"""What a fit that fails goes back to."""

from __future__ import annotations

import copy
from typing import Any


class Snapshot:
    """The state of an estimator before a fit.

    Parameters
    ----------
    estimator : estimator
    in_place : bool
        Whether the fit goes on with the weights there are; they are copied then.
    """

    def __init__(self, estimator: Any, in_place: bool) -> None:
        self._estimator = estimator
        self._attributes = dict(vars(estimator))
        self._lengths = {k: len(v) for k, v in self._attributes.items() if isinstance(v, list)}
        self._network: dict[str, Any] | None = None
        if in_place and "_network" in self._attributes:
            self._network = self._attributes["_network"].state_dict()
            if "_optimizer" in self._attributes:
                self._attributes["_optimizer"] = copy.copy(self._attributes["_optimizer"])

    def restore(self) -> None:
        """Make the estimator what it was."""
        attributes = vars(self._estimator)
        attributes.clear()
        attributes.update(self._attributes)
        for name, length in self._lengths.items():
            del attributes[name][length:]
        if self._network is not None:
            attributes["_network"].load_state_dict(self._network)
