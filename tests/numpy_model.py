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
        self.rate, self.layer, self.mask = layer.rate, layer, None

    def noise(self, shape):
        """Shape of the mask of an array of this shape."""
        if self.layer.noise_shape is None:
            return shape
        return tuple(m or n for m, n in zip(self.layer.noise_shape, shape, strict=True))

    def line(self, training):
        """Factor and shift of what is kept, value of what is dropped."""
        if self.layer.scaling == "vanilla":
            return 1.0 if training else 1.0 - self.rate, 0.0, 0.0
        return inverted(self.rate, training)

    def draw(self, noise):
        return mask_array(self.key, self.stream, 0, math.prod(noise), self.rate).reshape(noise)

    def run(self, x, training):
        factor, shift, dropped = self.line(training)
        if not training:
            return x * factor, (True, factor)
        self.mask = self.draw(self.noise(x.shape))
        record = np.broadcast_to(self.mask, x.shape), factor
        return np.where(record[0], x * factor + shift, dropped), record

    def gradient(self, record, dy):
        return np.where(record[0], dy * record[1], 0.0)

    def samples(self, x):
        """For x of shape [rows, samples, ...]."""
        rows, n, *rest = x.shape
        shared, *tail = self.noise((rows, *rest))
        mask = np.broadcast_to(self.draw((shared, n, *tail)), x.shape)
        factor, shift, dropped = self.line(True)
        return np.where(mask, x * factor + shift, dropped)


def inverted(rate, training):
    return 1 / (1 - rate) if training and rate < 1 else 1.0, 0.0, 0.0


class SpatialDropout(Dropout):
    def noise(self, shape):
        places = 1 if self.layer.data_format == "channels_first" else len(shape) - 1
        return tuple(n if i in (0, places) else 1 for i, n in enumerate(shape))

    def line(self, training):
        return inverted(self.rate, training)


class DropPath(SpatialDropout):
    def noise(self, shape):
        return (shape[0], *(1 for _ in shape[1:]))


class AlphaDropout(Dropout):
    def noise(self, shape):
        return shape

    def line(self, training):
        q, limit = 1 - self.rate, -1.7580993408473768
        if not training or q == 0:
            return 1.0, 0.0, 0.0
        a = (q + limit**2 * q * (1 - q)) ** -0.5
        b = -a * (1 - q) * limit
        return a, b, a * limit + b


class FeatureAlphaDropout(AlphaDropout):
    noise = SpatialDropout.noise


class DropConnect(Dense, Dropout):
    def __init__(self, layer):
        Dense.__init__(self, layer)
        Dropout.__init__(self, layer)

    def run(self, x, training):
        factor, _, _ = inverted(self.rate, training)
        if training:
            self.mask = self.draw(self.weight.shape)
        kept = self.mask if training else True
        return x @ np.where(kept, factor * self.weight, 0.0) + self.bias, (x, kept, factor)

    def gradient(self, record, dy):
        x, kept, factor = record
        rows, out = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        weight = np.where(kept, factor * (rows.T @ out), 0.0) + 2 * self.l2 * self.weight
        bias = out.sum(axis=0) + 2 * self.bias_l2 * self.bias
        self.gradients = np.concatenate([weight.ravel(), bias])
        return dy @ np.where(kept, factor * self.weight, 0.0).T  # the weights of now, as in Dense

    def samples(self, x):
        factor, _, _ = inverted(self.rate, True)
        mask = self.draw((x.shape[1], *self.weight.shape))
        used = np.where(mask, factor * self.weight, 0.0)
        return np.einsum("rs...i,sio->rs...o", x, used) + self.bias


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


_MODELS = {
    dw.DropConnect: DropConnect,
    dw.Dense: Dense,
    dw.Dropout: Dropout,
    dw.FeatureAlphaDropout: FeatureAlphaDropout,
    dw.AlphaDropout: AlphaDropout,
    dw.SpatialDropout: SpatialDropout,
    dw.DropPath: DropPath,
}


def model_of(layer):
    """The model of a layer of ours, as it is now."""
    if isinstance(layer, dw.Sequential):
        return Sequential([model_of(part) for part in layer])
    for ours, model in _MODELS.items():
        if isinstance(layer, ours):
            return model(layer)
    return {dw.ReLU: ReLU, dw.Tanh: Tanh}[type(layer)]()
