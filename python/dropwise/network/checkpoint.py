"""What training goes on from: a network with its optimizer."""

from __future__ import annotations

from dropwise.network import files
from dropwise.network.archive import File
from dropwise.network.sequential import Sequential
from dropwise.optimizers import Optimizer


def load_checkpoint(file: File) -> tuple[Sequential, Optimizer | None]:
    """The network and the optimizer in a file that `fit` or `Sequential.save` wrote.

    Parameters
    ----------
    file : path, or binary file open for reading

    Returns
    -------
    network : Sequential
    optimizer : Adam, SGD or None
        None if the file has none.

    Raises
    ------
    ValueError
        As `Sequential.load`.

    Notes
    -----
    Training that goes on from both has the weights, masks and figures of training that was never
    stopped, bit for bit on the same machine.  A `fit` with ``patience`` counts on from where the
    one that wrote the file stood, unless that one had ended.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> import dropwise as dw
    >>> net, adam = dw.Sequential([dw.Dense(2, 1)], seed=0), dw.Adam(0.1)
    >>> x, y = np.eye(2), np.ones(2)
    >>> options = {"loss": dw.MeanSquaredError(), "progress": False}
    >>> _ = net.fit(x, y, optimizer=adam, **options)
    >>> file = io.BytesIO()
    >>> net.save(file, adam)
    >>> again, optimizer = dw.load_checkpoint(file)
    >>> again.fit(x, y, optimizer=optimizer, **options) == net.fit(x, y, optimizer=adam, **options)
    True
    """
    network, optimizer = files.load(file)
    assert isinstance(network, Sequential)
    return network, optimizer
