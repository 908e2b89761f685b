"""One epoch of training, by this package and by others: the contenders of fit.py.

All start from the same weights, see the same rows in an order of their own and use Adam with the
same settings.  A call is one epoch, from the rows in a NumPy array to the mean loss as a float.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import dropwise as dw
import harness

LEARNING_RATE, BETAS, EPSILON = 1e-3, (0.9, 0.999), 1e-7
CLASSES = 10

_torch = harness.peer("torch")
_jax = harness.peer("jax")
_sklearn = harness.peer("sklearn.neural_network")

Epoch = Callable[[], float]


class Problem:
    """Rows with classes that can be learned, and the weights that all start from."""

    def __init__(self, sizes: tuple[int, ...], batch: int, batches: int) -> None:
        rng = np.random.default_rng(0)
        self.sizes, self.batch = sizes, batch
        self.x = rng.standard_normal((batch * batches, sizes[0]), np.float32)
        teacher = rng.standard_normal((sizes[0], CLASSES), np.float32)
        self.y = (self.x @ teacher).argmax(axis=1)
        self.weights = [
            rng.standard_normal((k, n), np.float32) * np.float32((2 / k) ** 0.5)
            for k, n in itertools.pairwise(sizes)
        ]


def our_net(p: Problem, rate: float, seed: int = 0) -> dw.Sequential:
    """Dense layers with ReLU and dropout between them."""
    layers: list[Any] = []
    for weight in p.weights:
        layers += [dw.Dense(*weight.shape), dw.ReLU(), dw.Dropout(rate)]
    net = dw.Sequential(layers[:-2], seed=seed)
    for layer, weight in zip(net.layers[::3], p.weights, strict=True):
        layer.weight = weight.copy()
    return net


def ours(p: Problem, rate: float, seed: int = 0) -> Epoch:
    """`Sequential.fit`, an epoch a call."""
    adam = dw.Adam(LEARNING_RATE, beta_1=BETAS[0], beta_2=BETAS[1], epsilon=EPSILON)
    epochs = our_net(p, rate, seed).iter_fit(
        p.x, p.y, loss=dw.SoftmaxCrossEntropy(), optimizer=adam, epochs=1 << 40, batch_size=p.batch
    )
    return lambda: next(epochs).data_loss


def torch_net(p: Problem, rate: float) -> Any:
    """The same network for PyTorch."""
    nn = _torch.nn
    layers: list[Any] = []
    for weight in p.weights:
        linear = nn.Linear(*weight.shape)
        with _torch.no_grad():
            linear.weight.copy_(_torch.from_numpy(weight.T.copy()))
            linear.bias.zero_()
        layers += [linear, nn.ReLU(), nn.Dropout(rate)]
    return nn.Sequential(*layers[:-2])


def torch_epoch(p: Problem, rate: float, fused: bool) -> Epoch:
    """The usual loop over batches of shuffled tensors; the loss is all that it records."""
    _torch.manual_seed(0)
    net = torch_net(p, rate)
    options = {"fused": True} if fused else {}
    adam = _torch.optim.Adam(
        net.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, **options
    )
    cross_entropy = _torch.nn.CrossEntropyLoss()
    x, y = _torch.from_numpy(p.x), _torch.from_numpy(p.y)

    def epoch() -> float:
        total = 0.0
        for rows in _torch.randperm(len(x)).split(p.batch):
            adam.zero_grad()
            loss = cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            adam.step()
            total += loss.item() * len(rows)
        return total / len(x)

    return epoch


def jax_epoch(p: Problem, rate: float) -> Epoch:
    """One compiled function a step, with Adam written out, in a loop over shuffled batches."""
    jnp = _jax.numpy
    key = _jax.random.key(0)

    def loss_of(parameters: Any, x: Any, y: Any, count: Any) -> Any:
        step_key = _jax.random.fold_in(key, count)
        for i, (w, b) in enumerate(parameters):
            x = x @ w + b
            if i < len(parameters) - 1:
                layer_key = _jax.random.fold_in(step_key, i)
                kept = _jax.random.bernoulli(layer_key, 1 - rate, x.shape) if rate else True
                x = jnp.where(kept, jnp.maximum(x, 0) / (1 - rate), 0)
        return -jnp.take_along_axis(_jax.nn.log_softmax(x), y[:, None], 1).mean()

    @_jax.jit
    def step(state: Any, x: Any, y: Any) -> Any:
        count, parameters, means, squares = state
        loss, gradients = _jax.value_and_grad(loss_of)(parameters, x, y, count)
        t = count + 1.0

        def moved(p: Any, m: Any, v: Any) -> Any:
            m, v = m / (1 - BETAS[0] ** t), v / (1 - BETAS[1] ** t)
            return p - LEARNING_RATE * m / (jnp.sqrt(v) + EPSILON)

        each = _jax.tree.map
        means = each(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, means, gradients)
        squares = each(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g**2, squares, gradients)
        return (count + 1, each(moved, parameters, means, squares), means, squares), loss

    parameters = [(jnp.asarray(w), jnp.zeros(w.shape[1])) for w in p.weights]
    zeros = _jax.tree.map(jnp.zeros_like, parameters)
    state = (0, parameters, zeros, zeros)
    rng = np.random.default_rng(0)

    def epoch() -> float:
        nonlocal state
        order, losses = rng.permutation(len(p.x)), []
        for i in range(0, len(order), p.batch):
            rows = order[i : i + p.batch]
            state, loss = step(state, p.x[rows], p.y[rows])
            losses.append(loss)
        return float(np.mean(_jax.device_get(losses)))

    return epoch


def estimator_epoch(p: Problem, estimator: Any, **options: Any) -> Epoch:
    """`partial_fit` of an `MLPClassifier`, scikit-learn's or ours."""
    net = estimator(
        p.sizes[1:-1], batch_size=p.batch, alpha=0.0, learning_rate_init=LEARNING_RATE,
        beta_1=BETAS[0], beta_2=BETAS[1], epsilon=EPSILON, random_state=0, **options,
    )  # fmt: skip
    classes = np.arange(CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.partial_fit(p.x, p.y, classes=classes)
    for mine, weight in zip(net.coefs_, p.weights, strict=True):
        mine[...] = weight
    for bias in net.intercepts_:
        bias[...] = 0
    del net._optimizer  # so that the next call makes a new one, for these weights

    def epoch() -> float:
        net.partial_fit(p.x, p.y)
        return float(net.loss_)

    return epoch


def our_estimators(p: Problem, rate: float) -> Iterator[Epoch]:
    """`dropwise.sklearn.MLPClassifier`, if scikit-learn is installed."""
    if _sklearn is not None:
        from dropwise.sklearn import MLPClassifier

        yield estimator_epoch(p, MLPClassifier, dropout=rate)


def peers(p: Problem, rate: float) -> Iterator[tuple[str, Epoch, float]]:
    """Name, epoch and dropout rate of those who are installed."""
    if _torch is not None:
        yield "PyTorch, Adam", torch_epoch(p, rate, fused=False), rate
        yield "PyTorch, fused Adam", torch_epoch(p, rate, fused=True), rate
    if _jax is not None:
        yield "JAX jit", jax_epoch(p, rate), rate
    if _sklearn is not None:
        yield "scikit-learn, no dropout", estimator_epoch(p, _sklearn.MLPClassifier), 0.0
