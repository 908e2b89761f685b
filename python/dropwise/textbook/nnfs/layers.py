"""Layers and activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise import _arguments
from dropwise._backends.protocol import Array
from dropwise.textbook._compute import (
    affine,
    product,
    softmax,
    sum_of_products,
    weight_gradients,
)
from dropwise.textbook._shared import (
    Alias,
    MaskAttribute,
    MaskRecord,
    TextObject,
    masked_gradient,
    multiply_by_mask,
    relu,
    relu_gradient,
    training_dropout,
)


class Step(TextObject):
    """A step of a network: its inputs, its output, and the gradient of its inputs."""

    inputs: Any
    output: Any
    dinputs: Any
    input = Alias("inputs")
    dinput = Alias("dinputs")


class Layer_Dense(Step):
    """A fully connected layer.

    Parameters
    ----------
    n_inputs, n_neurons : int
    weight_regularizer_l1, weight_regularizer_l2 : float
    bias_regularizer_l1, bias_regularizer_l2 : float
        Also as ``weight_L1``, ``weight_L2``, ``bias_L1``, ``bias_L2``.

    Attributes
    ----------
    weight_scale : float or callable
        Of the class: what the first weights are multiplied with, 0.01, or a function of `n_inputs`
        and `n_neurons` that gives it.  For scripts that start elsewhere.
    weights : ndarray, shape (n_inputs, n_neurons)
        Drawn as in the book, so that ``np.random.seed`` gives the book's weights.  Like all
        attributes it may be assigned.  Also as ``weight``.
    biases : ndarray, shape (1, n_neurons)
        Also as ``bias``.
    dweights, dbiases : ndarray
        New arrays at each backward, regularisation included.  Also as ``dweight``, ``dbias``.

    Notes
    -----
    Results have the dtype of the inputs, whatever that of the weights is.

    Examples
    --------
    >>> import numpy as np
    >>> from dropwise.textbook.nnfs import Layer_Dense
    >>> class Layer_He(Layer_Dense):
    ...     weight_scale = lambda n_inputs, n_neurons: np.sqrt(2 / n_inputs)
    >>> dense = Layer_He(2, 64)
    >>> dense.forward(np.ones((3, 2)))
    >>> dense.output.shape
    (3, 64)
    """

    weight_scale: ClassVar[float | Callable[[int, int], float]] = 0.01
    weight = Alias("weights")
    bias = Alias("biases")
    dweight = Alias("dweights")
    dbias = Alias("dbiases")
    weight_L1 = Alias("weight_regularizer_l1")
    weight_L2 = Alias("weight_regularizer_l2")
    bias_L1 = Alias("bias_regularizer_l1")
    bias_L2 = Alias("bias_regularizer_l2")

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        weight_regularizer_l1: float = 0,
        weight_regularizer_l2: float = 0,
        bias_regularizer_l1: float = 0,
        bias_regularizer_l2: float = 0,
        *,
        weight_L1: float = 0,
        weight_L2: float = 0,
        bias_L1: float = 0,
        bias_L2: float = 0,
    ) -> None:
        scale: Any = type(self).weight_scale
        if callable(scale):
            scale = scale(n_inputs, n_neurons)
        self.weights: Any = scale * np.random.randn(n_inputs, n_neurons)  # noqa: NPY002
        self.biases: Any = np.zeros((1, n_neurons), self.weights.dtype)
        self.weight_regularizer_l1 = weight_regularizer_l1 or weight_L1
        self.weight_regularizer_l2 = weight_regularizer_l2 or weight_L2
        self.bias_regularizer_l1 = bias_regularizer_l1 or bias_L1
        self.bias_regularizer_l2 = bias_regularizer_l2 or bias_L2

    def forward(self, inputs: ArrayLike, training: bool = True, *, drop_on: Any = None) -> None:
        self.inputs = inputs = _arguments.as_plain_array(inputs, "inputs")
        weights, biases = self.weights, self.biases
        dtype = inputs.dtype
        if type(weights) is not np.ndarray:
            weights = np.asarray(weights)
        if dtype is not weights.dtype and dtype.kind == "f" and dtype != weights.dtype:
            weights = weights.astype(dtype)
            biases = np.asarray(biases, dtype)
        self.output = affine(inputs, weights, biases)

    def backward(self, dvalues: ArrayLike) -> None:
        dvalues = np.asarray(dvalues)
        dweights, sums = weight_gradients(self.inputs, dvalues)
        dbiases = sums[None, :]
        weights = self.weights
        for gradient, value, l1, l2 in (
            (dweights, weights, self.weight_regularizer_l1, self.weight_regularizer_l2),
            (dbiases, self.biases, self.bias_regularizer_l1, self.bias_regularizer_l2),
        ):
            if l1 > 0:
                gradient += np.where(np.less(value, 0), -l1, l1)
            if l2 > 0:
                gradient += np.multiply(value, 2 * l2)
        self.dweights, self.dbiases = dweights, dbiases
        if type(weights) is not np.ndarray or weights.dtype is not dvalues.dtype:
            weights = np.asarray(weights, dvalues.dtype if dvalues.dtype.kind == "f" else None)
        self.dinputs = product(dvalues, weights.T)

    def get_parameters(self) -> tuple[Array, Array]:
        return self.weights, self.biases

    def set_parameters(self, weights: Array, biases: Array) -> None:
        self.weights, self.biases = weights, biases


class Layer_Dropout(Step):
    """Inverted dropout.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that an element is dropped.

    Attributes
    ----------
    rate : float
        The probability that an element is *kept*: the book's class stores ``1 - rate``.
    binary_mask : ndarray
        The values that the last training forward multiplied with, 0 or ``1 / (1 - rate)``; also as
        ``mask``.  May be assigned or changed in place: ``backward`` uses what is there.

    Examples
    --------
    >>> import numpy as np
    >>> from dropwise.textbook.nnfs import Layer_Dropout
    >>> dropout = Layer_Dropout(0.5)
    >>> dropout.forward(np.ones(1000, np.float32))
    >>> sorted({float(v) for v in dropout.output}), dropout.output.dtype
    ([0.0, 2.0], dtype('float32'))
    """

    binary_mask: Any = MaskAttribute(MaskRecord.factors)
    mask = Alias("binary_mask")

    def __init__(self, rate: float) -> None:
        self.rate = 1 - _arguments.check_rate(rate)

    def forward(self, inputs: ArrayLike, training: bool = True, *, drop_on: Any = None) -> None:
        self.inputs = inputs
        if not (training if drop_on is None else drop_on):
            self.output = np.array(_arguments.as_plain_array(inputs, "inputs"))
            return
        self.output, self.__dict__["binary_mask"] = training_dropout(
            inputs, 1.0 - self.rate, "inverted"
        )

    def backward(self, dvalues: ArrayLike) -> None:
        mask = self.__dict__.get("binary_mask")
        if type(mask) is MaskRecord:
            self.dinputs = masked_gradient(dvalues, mask)
        elif mask is None:
            raise RuntimeError("Layer_Dropout: backward was called before a training forward")
        else:
            self.dinputs = multiply_by_mask(dvalues, mask)


class Activation_ReLU(Step):
    """``max(inputs, 0)``."""

    def forward(self, inputs: ArrayLike, training: bool = True, *, drop_on: Any = None) -> None:
        self.inputs = inputs
        self.output = relu(inputs)

    def backward(self, dvalues: ArrayLike) -> None:
        self.dinputs = relu_gradient(dvalues, self.inputs)

    def predictions(self, outputs: Array) -> Array:
        return outputs


class Activation_Softmax(Step):
    """Softmax over the classes of each row."""

    def forward(self, inputs: ArrayLike, training: bool = True, *, drop_on: Any = None) -> None:
        self.inputs = inputs = _arguments.as_plain_array(inputs, "inputs")
        self.output = softmax(inputs)

    def backward(self, dvalues: Array) -> None:
        output = self.output
        gradient = np.subtract(dvalues, sum_of_products(output, dvalues))
        gradient *= output
        self.dinputs = gradient

    def predictions(self, outputs: Array) -> NDArray[np.intp]:
        classes: NDArray[np.intp] = outputs.argmax(axis=1)
        return classes
