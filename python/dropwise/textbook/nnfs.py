"""The classes of *Neural Networks from Scratch in Python* over this package.

Replace a script's own classes by ``from dropwise.textbook.nnfs import *``.  Results are attributes,
as in the book: `forward` sets `output`, `backward` sets `dinputs`.  The short forms of a chapter
that is published separately work as well: `Dropout`, `Activation_ReLu`, ``.mask``, ``.dinput``,
``update_param``, and ``weight_L2=`` for ``weight_regularizer_l2=``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropwise import _arguments, _arrays, datasets, functional, optimizers
from dropwise._backends.protocol import Array
from dropwise.losses import SoftmaxCrossEntropy, class_numbers
from dropwise.textbook._shared import (
    MaskRecord,
    fresh_key,
    masked_gradient,
    multiply_by_mask,
    training_dropout,
    weight_gradients,
)

__all__ = [
    "Activation_ReLU",
    "Activation_ReLu",
    "Activation_Softmax",
    "Activation_Softmax_Loss_CategoricalCrossentropy",
    "Dropout",
    "Layer_Dense",
    "Layer_Dropout",
    "Loss",
    "Loss_CategoricalCrossentropy",
    "Optimizer_Adam",
    "Optimizer_SGD",
    "spiral_data",
]


def spiral_data(samples: int, classes: int) -> tuple[Array, NDArray[np.int64]]:
    """Points on spiral arms, float32, and their classes; ``np.random.seed`` fixes them."""
    return datasets.spiral_data(samples, classes, seed=fresh_key())


class _Step:
    """A step of a network: its inputs, its output, and the gradient of its inputs."""

    inputs: Array
    output: Array
    dinputs: Array

    @property
    def dinput(self) -> Array:
        return self.dinputs

    @dinput.setter
    def dinput(self, value: Array) -> None:
        self.dinputs = value


# ---- layers --------------------------------------------------------------------------------------


class Layer_Dense(_Step):
    """A fully connected layer.

    Parameters
    ----------
    n_inputs, n_neurons : int
    weight_regularizer_l1, weight_regularizer_l2 : float
    bias_regularizer_l1, bias_regularizer_l2 : float
        Also as ``weight_L1``, ``weight_L2``, ``bias_L1``, ``bias_L2``.

    Attributes
    ----------
    weights : ndarray, shape (n_inputs, n_neurons)
        Drawn as in the book, so that ``np.random.seed`` gives the book's weights.  Like all
        attributes it may be assigned.
    biases : ndarray, shape (1, n_neurons)
    dweights, dbiases : ndarray
        New arrays at each backward, regularisation included.

    Notes
    -----
    Results have the dtype of the inputs, whatever that of the weights is.
    """

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
        self.weights: Array = 0.01 * np.random.randn(n_inputs, n_neurons)  # noqa: NPY002
        self.biases: Array = np.zeros((1, n_neurons), self.weights.dtype)
        self.weight_regularizer_l1 = weight_regularizer_l1 or weight_L1
        self.weight_regularizer_l2 = weight_regularizer_l2 or weight_L2
        self.bias_regularizer_l1 = bias_regularizer_l1 or bias_L1
        self.bias_regularizer_l2 = bias_regularizer_l2 or bias_L2

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        self.inputs = inputs = np.asarray(inputs)
        dtype = inputs.dtype if inputs.dtype.kind == "f" else self.weights.dtype
        self.output = functional.matmul(
            inputs,
            self.weights.astype(dtype, copy=False),
            bias=self.biases.reshape(-1).astype(dtype, copy=False),
        )

    def backward(self, dvalues: ArrayLike) -> None:
        dvalues = np.asarray(dvalues)
        weights = self.weights.astype(dvalues.dtype, copy=False)
        self.dweights, sums = weight_gradients(self.inputs, dvalues)
        self.dbiases = sums[None, :]
        _add_penalty(
            self.dweights, self.weights, self.weight_regularizer_l1, self.weight_regularizer_l2
        )
        _add_penalty(self.dbiases, self.biases, self.bias_regularizer_l1, self.bias_regularizer_l2)
        self.dinputs = functional.matmul(dvalues, weights.T)

    def get_parameters(self) -> tuple[Array, Array]:
        return self.weights, self.biases

    def set_parameters(self, weights: Array, biases: Array) -> None:
        self.weights, self.biases = weights, biases


def _add_penalty(gradient: Array, value: Array, l1: float, l2: float) -> None:
    """Add the gradient of ``l1 * sum(|value|) + l2 * sum(value**2)``; that of |0| counts as 1."""
    if l1 > 0:
        gradient += np.where(value < 0, -l1, l1)
    if l2 > 0:
        gradient += 2 * l2 * value


class Layer_Dropout(_Step):
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
        ``mask``.  May be assigned or changed in place: `backward` uses what is there.

    Examples
    --------
    >>> import numpy as np
    >>> from dropwise.textbook.nnfs import Layer_Dropout
    >>> dropout = Layer_Dropout(0.5)
    >>> dropout.forward(np.ones(1000, np.float32))
    >>> sorted({float(v) for v in dropout.output}), dropout.output.dtype
    ([0.0, 2.0], dtype('float32'))
    """

    def __init__(self, rate: float) -> None:
        self._drop_rate = _arguments.check_rate(rate)
        self._record: MaskRecord | None = None
        self._mask: Array | None = None  # once someone has asked for it, or set it

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        self.inputs = np.asarray(inputs)
        if not training:
            self.output = self.inputs.copy()
            return
        self.output, self._record = training_dropout(self.inputs, self._drop_rate, "inverted")
        self._mask = None

    def backward(self, dvalues: ArrayLike) -> None:
        if self._mask is not None:
            self.dinputs = multiply_by_mask(dvalues, self._mask)
        elif self._record is not None:
            self.dinputs = masked_gradient(dvalues, self._record)
        else:
            raise RuntimeError("Layer_Dropout: backward was called before a training forward")

    @property
    def rate(self) -> float:
        return 1 - self._drop_rate

    @rate.setter
    def rate(self, keep: float) -> None:
        self._drop_rate = _arguments.check_rate(1 - keep)

    @property
    def binary_mask(self) -> Array:
        if self._mask is None:
            if self._record is None:
                raise AttributeError("there is no binary_mask before a training forward")
            self._mask = self._record.factors(self.output.dtype)
        return self._mask

    @binary_mask.setter
    def binary_mask(self, value: Array) -> None:
        self._mask = value

    mask = binary_mask


class Activation_ReLU(_Step):
    """``max(inputs, 0)``."""

    _record: MaskRecord

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        self.inputs = _arguments.as_input(inputs, keep_integers=True)
        self.output, bits = _arrays.apply_relu(self.inputs, None)
        self._record = MaskRecord(bits, self.inputs.shape)

    def backward(self, dvalues: ArrayLike) -> None:
        self.dinputs = masked_gradient(dvalues, self._record)

    def predictions(self, outputs: Array) -> Array:
        return outputs


class Activation_Softmax(_Step):
    """Softmax over the classes of each row."""

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        self.inputs = inputs = np.asarray(inputs)
        values = np.exp(inputs - inputs.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
        self.output = values

    def backward(self, dvalues: ArrayLike) -> None:
        weighted = self.output * dvalues
        self.dinputs = weighted - self.output * weighted.sum(axis=1, keepdims=True)

    def predictions(self, outputs: Array) -> NDArray[np.intp]:
        classes: NDArray[np.intp] = outputs.argmax(axis=1)
        return classes


# ---- losses --------------------------------------------------------------------------------------


class Loss:
    """What the losses share."""

    trainable_layers: list[Any]

    def remember_trainable_layers(self, trainable_layers: list[Any]) -> None:
        self.trainable_layers = trainable_layers

    def regularization_loss(self, layer: Any = None) -> float:
        """The penalty of a layer; without one, of all that are remembered (later chapters)."""
        loss = 0.0
        for each in self.trainable_layers if layer is None else (layer,):
            for value, l1, l2 in (
                (each.weights, each.weight_regularizer_l1, each.weight_regularizer_l2),
                (each.biases, each.bias_regularizer_l1, each.bias_regularizer_l2),
            ):
                if l1 > 0:
                    loss += l1 * float(np.abs(value).sum())
                if l2 > 0:
                    loss += l2 * float(np.vdot(value, value))
        return loss

    def forward(self, y_pred: Array, y_true: ArrayLike) -> Array:
        raise NotImplementedError

    def calculate(
        self, output: Array, y: ArrayLike, *, include_regularization: bool = False
    ) -> Any:
        """The mean loss; with `include_regularization` a pair with the penalty."""
        sample_losses = self.forward(output, y)
        self.accumulated_sum = getattr(self, "accumulated_sum", 0.0) + np.sum(sample_losses)
        self.accumulated_count = getattr(self, "accumulated_count", 0) + len(sample_losses)
        return self._with_penalty(np.mean(sample_losses), include_regularization)

    def calculate_accumulated(self, *, include_regularization: bool = False) -> Any:
        """The mean loss since `new_pass`."""
        mean = self.accumulated_sum / self.accumulated_count
        return self._with_penalty(mean, include_regularization)

    def _with_penalty(self, mean: Any, include_regularization: bool) -> Any:
        return (mean, self.regularization_loss()) if include_regularization else mean

    def new_pass(self) -> None:
        self.accumulated_sum, self.accumulated_count = 0.0, 0


def _classes(y_true: ArrayLike) -> NDArray[Any]:
    """Class numbers, from class numbers or one-hot rows."""
    y = np.asarray(y_true)
    return y.argmax(axis=1) if y.ndim == 2 else y


class Loss_CategoricalCrossentropy(Loss):
    """Cross-entropy of probabilities, which are clipped to [1e-7, 1 - 1e-7]."""

    dinputs: Array

    def forward(self, y_pred: Array, y_true: ArrayLike) -> Array:
        y_true = np.asarray(y_true)
        clipped = np.clip(y_pred, 1e-7, 1 - 1e-7)
        if y_true.ndim == 2:
            confidences = (clipped * y_true).sum(axis=1)
        else:
            confidences = clipped[np.arange(len(clipped)), y_true]
        losses: Array = -np.log(confidences)
        return losses

    def backward(self, dvalues: Array, y_true: ArrayLike) -> None:
        y_true, (samples, labels) = np.asarray(y_true), np.shape(dvalues)
        if y_true.ndim == 1:
            y_true = np.eye(labels, dtype=dvalues.dtype)[y_true]
        self.dinputs = np.divide(y_true, dvalues) / -samples


class Activation_Softmax_Loss_CategoricalCrossentropy(_Step):
    """Softmax and cross-entropy in one, whose gradient is simpler and faster.

    The loss is computed from the scores and so not clipped.
    """

    def __init__(self) -> None:
        self.activation = Activation_Softmax()
        self.loss = Loss_CategoricalCrossentropy()
        self._both = SoftmaxCrossEntropy()

    def forward(self, inputs: ArrayLike, y_true: ArrayLike) -> float:
        self.inputs = np.asarray(inputs)
        data_loss = self._both.forward(self.inputs, y_true)
        self.output = self.activation.output = self._both.probabilities
        return data_loss

    def backward(self, dvalues: Array, y_true: ArrayLike) -> None:
        """`dvalues` are the probabilities, as the book passes them."""
        samples, classes = dvalues.shape
        dinputs: Array = np.divide(dvalues, samples, order="C")
        label = class_numbers(_classes(y_true), classes)
        dinputs.reshape(-1)[np.arange(0, dinputs.size, classes) + label] -= 1 / samples
        self.dinputs = dinputs


# ---- optimizers ----------------------------------------------------------------------------------


class _Optimizer:
    """The book's three calls around an optimizer of this package.

    The moments of a layer are kept on it, in an attribute.
    """

    def __init__(self, learning_rate: float, decay: float) -> None:
        self.learning_rate = learning_rate
        self.current_learning_rate = learning_rate
        self.decay = decay
        self.iterations = 0

    def _new(self) -> optimizers.Optimizer:
        raise NotImplementedError

    def pre_update_params(self) -> None:
        if self.decay:
            self.current_learning_rate = self.learning_rate / (1 + self.decay * self.iterations)

    def update_params(self, layer: Any) -> None:
        name = f"_{type(self).__name__}"
        step = getattr(layer, name, None)
        if step is None:
            step = self._new()
            setattr(layer, name, step)
        step.learning_rate, step.iterations = self.current_learning_rate, self.iterations
        step.unbind()  # readers assign other arrays to a layer
        step.step([(layer.weights, layer.dweights), (layer.biases, layer.dbiases)])

    def post_update_params(self) -> None:
        self.iterations += 1

    pre_update_param = pre_update_params
    update_param = update_params
    post_update_param = post_update_params


class Optimizer_SGD(_Optimizer):
    """Stochastic gradient descent, with momentum and a learning rate that decays."""

    def __init__(
        self, learning_rate: float = 1.0, decay: float = 0.0, momentum: float = 0.0
    ) -> None:
        super().__init__(learning_rate, decay)
        self.momentum = momentum

    def _new(self) -> optimizers.Optimizer:
        return optimizers.SGD(self.learning_rate, momentum=self.momentum)


class Optimizer_Adam(_Optimizer):
    """Adam."""

    def __init__(
        self,
        learning_rate: float = 0.001,
        decay: float = 0.0,
        epsilon: float = 1e-7,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
    ) -> None:
        super().__init__(learning_rate, decay)
        self.epsilon, self.beta_1, self.beta_2 = epsilon, beta_1, beta_2

    def _new(self) -> optimizers.Optimizer:
        return optimizers.Adam(
            self.learning_rate, beta_1=self.beta_1, beta_2=self.beta_2, epsilon=self.epsilon
        )


Dropout = Layer_Dropout
Activation_ReLu = Activation_ReLU
