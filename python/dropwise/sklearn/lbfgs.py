"""The solver "lbfgs": scipy's L-BFGS-B on the loss of all rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from dropwise._backends.protocol import Array
from dropwise.losses import Loss
from dropwise.network.data import Data
from dropwise.network.training import forward_step
from dropwise.network.workspace import Workspace
from dropwise.sklearn.architecture import dense_layers
from dropwise.sklearn.progress import Progress

# Rows of a sparse matrix that are dense at a time.
ROWS_AT_ONCE = 1024


class Objective:
    """The loss of all rows as a function of all parameters, and its gradient.

    Parameters
    ----------
    network : Sequential
        Its parameters are set to those that the function is called with.
    data : Data
    loss : Loss
    alpha : float
        Strength of the L2 penalty; the sum of the weights of the rows divides it.
    """

    def __init__(self, network: Any, data: Data, loss: Loss, alpha: float) -> None:
        self._network, self._data, self._loss = network, data, loss
        rows = data.x.shape[0]
        self._weight = float(rows if data.weight is None else data.weight.sum())
        self._size = rows if isinstance(data.x, np.ndarray) else ROWS_AT_ONCE
        self._workspace = Workspace()
        for dense in dense_layers(network):
            dense.l2 = 0.5 * alpha / self._weight

    def parameters(self) -> NDArray[np.float64]:
        """All parameters: weights, then biases, layer by layer."""
        return np.concatenate(self._network.parameter_values(), dtype=np.float64)

    def set_parameters(self, values: Array) -> None:
        """The inverse of `parameters`."""
        start = 0
        for p in self._network.parameter_values():
            p[...] = values[start : start + p.size]
            start += p.size

    def __call__(self, values: Array) -> tuple[float, NDArray[np.float64]]:
        """The loss, penalty included, and its gradient."""
        self.set_parameters(values)
        gradient = np.zeros(len(values))
        self.data_loss = self.penalty = 0.0  # of the last call
        for batch in self._data.batches(self._size, None, self._workspace):
            weight = float(len(batch.x) if batch.weight is None else batch.weight.sum())
            if weight == 0.0:
                continue
            figures = forward_step(self._network, batch, self._loss)
            self._network.backward(self._loss.backward(), input_grad=False)
            share = weight / self._weight
            self.data_loss += share * figures.data_loss
            self.penalty += share * figures.regularization_loss
            gradient += share * np.concatenate([g for _, g in self._network.parameters()])
        return self.data_loss + self.penalty, gradient


def minimize(
    objective: Objective, *, max_iter: int, max_fun: int, tol: float, verbose: bool
) -> Any:
    """Set the parameters to a minimum, with that the last call of `objective`; scipy's result."""
    done, last = 0, float("nan")

    def value(values: Array) -> tuple[float, NDArray[np.float64]]:
        nonlocal last
        last, gradient = objective(values)
        return last, gradient

    with Progress(verbose, max_iter) as progress:

        def after_iteration(_: Array) -> None:
            nonlocal done
            done += 1
            progress.iteration(done, last)

        result = scipy.optimize.minimize(
            value,
            objective.parameters(),
            method="L-BFGS-B",
            jac=True,
            options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
            callback=after_iteration,
        )
    objective(result.x)  # the last call may have been for others
    if result.status != 0:
        warnings.warn(
            f"lbfgs failed to converge after {result.nit} iteration(s) (status={result.status}): "
            f"{result.message}.  Increase max_iter (now {max_iter}) or max_fun (now {max_fun}), or "
            "scale the data.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return result
