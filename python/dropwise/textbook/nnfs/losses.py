"""Losses, and softmax with its loss in one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dropwise._backends.protocol import Array
from dropwise.textbook._shared import Alias, TextObject
from dropwise.textbook.nnfs.layers import Activation_Softmax, Step


class Loss(TextObject):
    """What the losses share."""

    trainable_layers: list[Any]

    def remember_trainable_layers(self, trainable_layers: list[Any]) -> None:
        self.trainable_layers = trainable_layers

    def regularization_loss(self, layer: Any = None) -> Any:
        """The penalty of a layer; without one, of all that are remembered (later chapters)."""
        loss: Any = 0
        for each in self.trainable_layers if layer is None else (layer,):
            for value, l1, l2 in (
                (each.weights, each.weight_regularizer_l1, each.weight_regularizer_l2),
                (each.biases, each.bias_regularizer_l1, each.bias_regularizer_l2),
            ):
                if l1 > 0:
                    loss += l1 * np.add.reduce(np.abs(value), None)
                if l2 > 0:
                    loss += l2 * np.vdot(value, value)
        return loss

    def forward(self, y_pred: Array, y_true: ArrayLike) -> Array:
        raise NotImplementedError

    def calculate(
        self, output: Array, y: ArrayLike, *, include_regularization: bool = False
    ) -> Any:
        """The mean loss; with `include_regularization` a pair with the penalty."""
        sample_losses = self.forward(output, y)
        total, count = np.add.reduce(sample_losses, None), len(sample_losses)
        known = self.__dict__
        self.accumulated_sum = known.get("accumulated_sum", 0) + total
        self.accumulated_count = known.get("accumulated_count", 0) + count
        return self._with_penalty(total / sample_losses.size, include_regularization)

    def calculate_accumulated(self, *, include_regularization: bool = False) -> Any:
        """The mean loss since ``new_pass``."""
        mean = self.accumulated_sum / self.accumulated_count
        return self._with_penalty(mean, include_regularization)

    def _with_penalty(self, mean: Any, include_regularization: bool) -> Any:
        return (mean, self.regularization_loss()) if include_regularization else mean

    def new_pass(self) -> None:
        self.accumulated_sum, self.accumulated_count = 0, 0


class Loss_CategoricalCrossentropy(Loss):
    """Cross-entropy of probabilities, which are clipped to [1e-7, 1 - 1e-7]."""

    dinputs: Array
    dinput = Alias("dinputs")

    def forward(self, y_pred: Array, y_true: ArrayLike) -> Array:
        y_pred, y_true = np.asarray(y_pred), np.asarray(y_true)
        if y_true.ndim == 2:
            confidences = np.einsum("ij,ij->i", _clip(y_pred), y_true)
        else:
            confidences = _clip(y_pred[np.arange(len(y_pred)), y_true])
        losses: Array = np.negative(np.log(confidences))
        return losses

    def backward(self, dvalues: Array, y_true: ArrayLike) -> None:
        y_true, dvalues = np.asarray(y_true), np.asarray(dvalues)
        samples = len(dvalues)
        if y_true.ndim == 1:
            gradient = np.zeros(dvalues.shape, _float_dtype(dvalues))
            at = np.arange(samples), y_true
            gradient[at] = -1 / (dvalues[at] * samples)
        else:
            gradient = np.divide(y_true, dvalues)
            gradient /= -samples
        self.dinputs = gradient


def _float_dtype(x: Array) -> np.dtype[Any]:
    """The dtype of a quotient by a number: whole numbers become float64."""
    return np.dtype(np.float64) if x.dtype.kind in "biu" else x.dtype


def _clip(probabilities: Array) -> Array:
    return np.minimum(np.maximum(probabilities, 1e-7), 1 - 1e-7)


class Activation_Softmax_Loss_CategoricalCrossentropy(Step):
    """Softmax and cross-entropy in one, whose gradient is simpler and faster."""

    def __init__(self) -> None:
        self.activation = Activation_Softmax()
        self.loss = Loss_CategoricalCrossentropy()

    def forward(self, inputs: ArrayLike, y_true: ArrayLike) -> Any:
        self.activation.forward(inputs)
        self.output = self.activation.output
        return self.loss.calculate(self.output, y_true)

    def backward(self, dvalues: Array, y_true: ArrayLike) -> None:
        """`dvalues` are the probabilities, as the book passes them."""
        label = np.asarray(y_true)
        if label.ndim == 2:
            label = label.argmax(axis=1)
        dinputs = np.array(dvalues)
        dinputs = dinputs.astype(_float_dtype(dinputs), copy=False)
        samples = len(dinputs)
        dinputs[np.arange(samples), label] -= 1
        dinputs /= samples
        self.dinputs = dinputs
