"""Networks in plain NumPy and float64, on the masks of the oracle: what ours are compared with."""

from __future__ import annotations

import copy
import math

import numpy as np

import dropwise as dw
from mask_contract import mask_array


class Dense:
    def __init__(self, layer):
        self.weight = layer.weight.astype(np.float64)
        self.bias = layer.bias.astype(np.float64)
        self.l2, self.bias_l2 = layer.l2, layer.bias_l2

    def run(self, x, training):
        return x @ self.weight + self.bias, x

    def gradient(self, x, dy):
        rows, out = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        weight = rows.T @ out + 2 * self.l2 * self.weight
        bias = out.sum(axis=0) + 2 * self.bias_l2 * self.bias
        self.gradients = np.concatenate([weight.ravel(), bias])
        return dy @ self.weight.T

    def samples(self, x):
        return x @ self.weight + self.bias

    def penalty(self):
        return self.l2 * (self.weight**2).sum() + self.bias_l2 * (self.bias**2).sum()

    def add(self, step):
        self.weight += step[: self.weight.size].reshape(self.weight.shape)
        self.bias += step[self.weight.size :]


class ReLU:
    def run(self, x, training):
        return np.where(x <= 0, 0.0, x), ~(x <= 0)

    def gradient(self, passed, dy):
        return np.where(passed, dy, 0.0)

    def samples(self, x):
        return np.where(x <= 0, 0.0, x)


class Tanh:
    def run(self, x, training):
        y = np.tanh(x)
        return y, y

    def gradient(self, y, dy):
        return dy * (1 - y * y)

    def samples(self, x):
        return np.tanh(x)


class Dropout:
    def __init__(self, layer):
        state = layer.state_dict()
        self.key, self.stream = int(state["key"], 16), state["next_stream"]
        self.rate, self.scaling, self.noise_shape = layer.rate, layer.scaling, layer.noise_shape
        self.mask = None

    def draw(self, noise):
        return mask_array(self.key, self.stream, 0, math.prod(noise), self.rate).reshape(noise)

    def factor(self, training):
        if self.scaling == "inverted":
            return 1 / (1 - self.rate) if training and self.rate < 1 else 1.0
        return 1.0 if training else 1.0 - self.rate

    def run(self, x, training):
        if not training:
            return x * self.factor(False), (True, self.factor(False))
        noise = x.shape
        if self.noise_shape is not None:
            pairs = zip(self.noise_shape, x.shape, strict=True)
            noise = tuple(n if m is None else m for m, n in pairs)
        self.mask = self.draw(noise)
        record = np.broadcast_to(self.mask, x.shape), self.factor(True)
        return np.where(record[0], x * record[1], 0.0), record

    def gradient(self, record, dy):
        return np.where(record[0], dy * record[1], 0.0)

    def samples(self, x):
        """For x of shape [rows, samples, ...]."""
        rows, n, *rest = x.shape
        noise = (rows, n, *rest)
        if self.noise_shape is not None:
            shared = self.noise_shape[0] == 1
            tail = [m or s for m, s in zip(self.noise_shape[1:], rest, strict=True)]
            noise = (1 if shared else rows, n, *tail)
        mask = np.broadcast_to(self.draw(noise), x.shape)
        return np.where(mask, x * self.factor(True), 0.0)


class Sequential:
    def __init__(self, layers):
        self.layers = layers

    def run(self, x, training):
        records = []
        for layer in self.layers:
            x, record = layer.run(x, training)
            records.append(record)
        return x, records

    def gradient(self, records, dy):
        for layer, record in zip(reversed(self.layers), reversed(records), strict=True):
            dy = layer.gradient(record, dy)
        return dy

    def samples(self, x):
        for layer in self.layers:
            x = layer.samples(x)
        return x

    # ---- what a network does and its layers do not

    def parts(self, kind):
        for layer in self.layers:
            if isinstance(layer, Sequential):
                yield from layer.parts(kind)
            elif isinstance(layer, kind):
                yield layer

    def take_streams(self):
        for dropout in self.parts(Dropout):
            dropout.stream += 1

    def forward(self, x, training=True):
        y, records = self.run(x, training)
        if training:
            self.take_streams()
        return y, records

    def predict_mc(self, x, n):
        results = self.samples(np.repeat(x[:, None], n, axis=1))
        self.take_streams()
        return results.mean(axis=1), results.std(axis=1)

    def penalty(self):
        return sum(dense.penalty() for dense in self.parts(Dense))


class Adam:
    """The textbook's means, for a network."""

    def __init__(self, optimizer):
        self.optimizer, self.steps, self.moments = optimizer, 0, {}

    def step(self, network):
        o, self.steps = self.optimizer, self.steps + 1
        for i, dense in enumerate(network.parts(Dense)):
            g = dense.gradients
            m, v = self.moments.get(i, (0.0, 0.0))
            m, v = o.beta_1 * m + (1 - o.beta_1) * g, o.beta_2 * v + (1 - o.beta_2) * g**2
            self.moments[i] = m, v
            mean = m / (1 - o.beta_1**self.steps)
            root = np.sqrt(v / (1 - o.beta_2**self.steps))
            dense.add(-o.learning_rate * mean / (root + o.epsilon))

    def __deepcopy__(self, memo):
        other = Adam(self.optimizer)
        other.steps, other.moments = self.steps, copy.deepcopy(self.moments, memo)
        return other


_MODELS = {dw.Dense: Dense, dw.Dropout: Dropout}


def model_of(layer):
    """The model of a layer of ours, as it is now."""
    if isinstance(layer, dw.Sequential):
        return Sequential([model_of(part) for part in layer])
    for ours, model in _MODELS.items():
        if isinstance(layer, ours):
            return model(layer)
    return {dw.ReLU: ReLU, dw.Tanh: Tanh}[type(layer)]()
