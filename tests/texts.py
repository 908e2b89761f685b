"""What the three texts' own classes compute, written anew from their formulas.

Tests hold ours beside these, and bench/textbooks.py times both.  They take as many operations of
NumPy as the texts' classes do, temporaries included: nothing here is made faster.
"""

from __future__ import annotations

import numpy as np

# ---- Deep Learning from Scratch ------------------------------------------------------------------


class DlfsDropout:
    def __init__(self, dropout_ratio=0.5):
        self.dropout_ratio, self.mask = dropout_ratio, None

    def forward(self, x, train_flg=True):
        if not train_flg:
            return x * (1.0 - self.dropout_ratio)
        self.mask = np.random.rand(*x.shape) > self.dropout_ratio  # noqa: NPY002
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class DlfsTimeDropout:
    def __init__(self, dropout_ratio=0.5):
        self.dropout_ratio, self.mask, self.train_flg = dropout_ratio, None, True

    def forward(self, xs):
        if not self.train_flg:
            return xs
        kept = np.random.rand(*xs.shape) > self.dropout_ratio  # noqa: NPY002
        self.mask = kept.astype(np.float32) * (1 / (1.0 - self.dropout_ratio))
        return xs * self.mask

    def backward(self, dout):
        return dout * self.mask


class DlfsRelu:
    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout):  # changes the caller's array
        dout[self.mask] = 0
        return dout


class DlfsSigmoid:
    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout):
        return dout * (1.0 - self.out) * self.out


class DlfsAffine:
    """Of the first volume."""

    def __init__(self, w, b):
        self.W, self.b = w, b

    def forward(self, x):
        self.shape = x.shape
        self.x = x.reshape(x.shape[0], -1)
        return np.dot(self.x, self.W) + self.b

    def backward(self, dout):
        dx = np.dot(dout, self.W.T)
        self.dW = np.dot(self.x.T, dout)
        self.db = np.sum(dout, axis=0)
        return dx.reshape(*self.shape)


class Dlfs2Affine:
    """Of the second volume."""

    def __init__(self, w, b):
        self.params = [w, b]
        self.grads = [np.zeros_like(w), np.zeros_like(b)]

    def forward(self, x):
        w, b = self.params
        self.x = x
        return np.dot(x, w) + b

    def backward(self, dout):
        w, _ = self.params
        dx = np.dot(dout, w.T)
        self.grads[0][...] = np.dot(self.x.T, dout)
        self.grads[1][...] = np.sum(dout, axis=0)
        return dx


def dlfs_softmax(x):
    x = x - np.max(x, axis=-1, keepdims=True)
    return np.exp(x) / np.sum(np.exp(x), axis=-1, keepdims=True)


class DlfsSoftmaxWithLoss:
    """Of later editions; the first ones add nothing to a probability."""

    added = 1e-7

    def forward(self, x, t):
        self.t, self.y = t, dlfs_softmax(x)
        y = self.y
        if y.ndim == 1:
            t, y = t.reshape(1, t.size), y.reshape(1, y.size)
        if t.size == y.size:
            t = t.argmax(axis=1)
        rows = y.shape[0]
        self.loss = -np.sum(np.log(y[np.arange(rows), t] + self.added)) / rows
        return self.loss

    def backward(self, dout=1):
        rows = self.t.shape[0]
        if self.t.size == self.y.size:
            return (self.y - self.t) / rows
        dx = self.y.copy()
        dx[np.arange(rows), self.t] -= 1
        return dx / rows


# ---- Neural Networks from Scratch ----------------------------------------------------------------


class NnfsDense:
    def __init__(self, n_inputs, n_neurons, l1_w=0, l2_w=0, l1_b=0, l2_b=0):
        self.weights = 0.01 * np.random.randn(n_inputs, n_neurons)  # noqa: NPY002
        self.biases = np.zeros((1, n_neurons))
        self.strengths = ("weights", l1_w, l2_w), ("biases", l1_b, l2_b)

    def forward(self, inputs, training=True):
        self.inputs = inputs
        self.output = np.dot(inputs, self.weights) + self.biases

    def backward(self, dvalues):
        self.dweights = np.dot(self.inputs.T, dvalues)
        self.dbiases = np.sum(dvalues, axis=0, keepdims=True)
        for name, l1, l2 in self.strengths:
            value, gradient = getattr(self, name), getattr(self, f"d{name}")
            if l1 > 0:
                sign = np.ones_like(value)
                sign[value < 0] = -1
                gradient += l1 * sign
            if l2 > 0:
                gradient += 2 * l2 * value
        self.dinputs = np.dot(dvalues, self.weights.T)


class NnfsDropout:
    def __init__(self, rate):
        self.rate = 1 - rate

    def forward(self, inputs, training=True):
        self.inputs = inputs
        if not training:
            self.output = inputs.copy()
            return
        drawn = np.random.binomial(1, self.rate, size=inputs.shape)  # noqa: NPY002
        self.binary_mask = drawn / self.rate
        self.output = inputs * self.binary_mask

    def backward(self, dvalues):
        self.dinputs = dvalues * self.binary_mask


class NnfsReLU:
    def forward(self, inputs, training=True):
        self.inputs = inputs
        self.output = np.maximum(0, inputs)

    def backward(self, dvalues):
        self.dinputs = dvalues.copy()
        self.dinputs[self.inputs <= 0] = 0


class NnfsSoftmax:
    def forward(self, inputs, training=True):
        self.inputs = inputs
        values = np.exp(inputs - np.max(inputs, axis=1, keepdims=True))
        self.output = values / np.sum(values, axis=1, keepdims=True)

    def backward(self, dvalues):
        self.dinputs = np.empty_like(dvalues)
        for i, (p, d) in enumerate(zip(self.output, dvalues, strict=True)):
            p = p.reshape(-1, 1)
            self.dinputs[i] = np.dot(np.diagflat(p) - np.dot(p, p.T), d)


class NnfsCrossentropy:
    def forward(self, y_pred, y_true):
        clipped = np.clip(y_pred, 1e-7, 1 - 1e-7)
        if len(y_true.shape) == 1:
            confidences = clipped[range(len(y_pred)), y_true]
        else:
            confidences = np.sum(clipped * y_true, axis=1)
        return -np.log(confidences)

    def calculate(self, output, y):
        return np.mean(self.forward(output, y))

    def backward(self, dvalues, y_true):
        if len(y_true.shape) == 1:
            y_true = np.eye(len(dvalues[0]))[y_true]
        self.dinputs = -y_true / dvalues
        self.dinputs = self.dinputs / len(dvalues)


class NnfsSoftmaxCrossentropy:
    def __init__(self):
        self.activation, self.loss = NnfsSoftmax(), NnfsCrossentropy()

    def forward(self, inputs, y_true):
        self.activation.forward(inputs)
        self.output = self.activation.output
        return self.loss.calculate(self.output, y_true)

    def backward(self, dvalues, y_true):
        if len(y_true.shape) == 2:
            y_true = np.argmax(y_true, axis=1)
        self.dinputs = dvalues.copy()
        self.dinputs[range(len(dvalues)), y_true] -= 1
        self.dinputs = self.dinputs / len(dvalues)


class NnfsOptimizer:
    def __init__(self, learning_rate, decay=0.0):
        self.learning_rate = self.current_learning_rate = learning_rate
        self.decay, self.iterations = decay, 0

    def pre_update_params(self):
        if self.decay:
            factor = 1.0 / (1.0 + self.decay * self.iterations)
            self.current_learning_rate = self.learning_rate * factor

    def post_update_params(self):
        self.iterations += 1


class NnfsSGD(NnfsOptimizer):
    def __init__(self, learning_rate=1.0, decay=0.0, momentum=0.0):
        super().__init__(learning_rate, decay)
        self.momentum = momentum

    def update_params(self, layer):
        rate = self.current_learning_rate
        if self.momentum:
            if not hasattr(layer, "weight_momentums"):
                layer.weight_momentums = np.zeros_like(layer.weights)
                layer.bias_momentums = np.zeros_like(layer.biases)
            w = self.momentum * layer.weight_momentums - rate * layer.dweights
            layer.weight_momentums = w
            b = self.momentum * layer.bias_momentums - rate * layer.dbiases
            layer.bias_momentums = b
        else:
            w, b = -rate * layer.dweights, -rate * layer.dbiases
        layer.weights += w
        layer.biases += b


class NnfsAdam(NnfsOptimizer):
    def __init__(self, learning_rate=0.001, decay=0.0, epsilon=1e-7, beta_1=0.9, beta_2=0.999):
        super().__init__(learning_rate, decay)
        self.epsilon, self.beta_1, self.beta_2 = epsilon, beta_1, beta_2

    def update_params(self, layer):
        if not hasattr(layer, "weight_cache"):
            for kind in ("momentums", "cache"):
                setattr(layer, f"weight_{kind}", np.zeros_like(layer.weights))
                setattr(layer, f"bias_{kind}", np.zeros_like(layer.biases))
        beta_1, beta_2, t = self.beta_1, self.beta_2, self.iterations + 1
        layer.weight_momentums = beta_1 * layer.weight_momentums + (1 - beta_1) * layer.dweights
        layer.bias_momentums = beta_1 * layer.bias_momentums + (1 - beta_1) * layer.dbiases
        w_mean = layer.weight_momentums / (1 - beta_1**t)
        b_mean = layer.bias_momentums / (1 - beta_1**t)
        layer.weight_cache = beta_2 * layer.weight_cache + (1 - beta_2) * layer.dweights**2
        layer.bias_cache = beta_2 * layer.bias_cache + (1 - beta_2) * layer.dbiases**2
        w_square = layer.weight_cache / (1 - beta_2**t)
        b_square = layer.bias_cache / (1 - beta_2**t)
        rate = self.current_learning_rate
        layer.weights += -rate * w_mean / (np.sqrt(w_square) + self.epsilon)
        layer.biases += -rate * b_mean / (np.sqrt(b_square) + self.epsilon)


# ---- CS231n --------------------------------------------------------------------------------------


def cs231n_dropout_forward(x, dropout_param):
    p, mask = dropout_param["p"], None
    if "seed" in dropout_param:
        np.random.seed(dropout_param["seed"])  # noqa: NPY002
    out = x
    if dropout_param["mode"] == "train":
        mask = (np.random.rand(*x.shape) < p) / p  # noqa: NPY002
        out = x * mask
    return out.astype(x.dtype, copy=False), (dropout_param, mask)


def cs231n_dropout_backward(dout, cache):
    dropout_param, mask = cache
    return dout * mask if dropout_param["mode"] == "train" else dout


def cs231n_affine_forward(x, w, b):
    return x.reshape(x.shape[0], -1).dot(w) + b, (x, w, b)


def cs231n_affine_backward(dout, cache):
    x, w, _ = cache
    dx = dout.dot(w.T).reshape(x.shape)
    dw = x.reshape(x.shape[0], -1).T.dot(dout)
    return dx, dw, np.sum(dout, axis=0)


def cs231n_relu_forward(x):
    return np.maximum(0, x), x


def cs231n_relu_backward(dout, cache):
    return dout * (cache > 0)
