"""
Time over the rate
==================

In most libraries a training step takes as long with dropout as without, or longer: dropped units
are computed and then multiplied by zero.  Here they are not computed, so that a step takes the
less time the more is dropped.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import dropwise as dw

ROWS, WIDTH, ROUNDS = 256, 1024, 9
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

dw.set_num_threads(1)
rng = np.random.default_rng(0)
x = rng.standard_normal((ROWS, WIDTH), dtype=np.float32)
dy = rng.standard_normal((ROWS, WIDTH), dtype=np.float32)


def network(rate: float, skip_zeros: bool) -> dw.Sequential:
    """Two layers with ReLU and dropout between them."""
    first, second = (dw.Dense(WIDTH, WIDTH, skip_zeros=skip_zeros) for _ in range(2))
    return dw.Sequential([first, dw.ReLU(), dw.Dropout(rate), second], seed=0)


def one_step(net: dw.Sequential) -> None:
    """Forward and backward of the network, which skips what it can."""
    net.forward(x)
    net.backward(dy)


def layer_by_layer(net: dw.Sequential) -> None:
    """The same by its layers, none of which knows of the others: everything is computed."""
    y, dx = x, dy
    for layer in net:
        y = layer.forward(y)
    for layer in reversed(list(net)):
        dx = layer.backward(dx)


# %%
# Layers with ``skip_zeros=False`` that are called one by one compute everything, as other
# libraries do.  All take turns, so that they meet the same load of the machine.

steps = {"everything computed": (layer_by_layer, False), "zeros skipped": (one_step, True)}
networks = {(name, rate): network(rate, steps[name][1]) for rate in RATES for name in steps}
times: dict[tuple[str, float], list[float]] = {which: [] for which in networks}
for _ in range(ROUNDS):
    for which, net in networks.items():
        start = time.perf_counter()
        steps[which[0]][0](net)
        times[which].append(time.perf_counter() - start)

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name in steps:
    milliseconds = [1e3 * np.median(times[name, rate][1:]) for rate in RATES]
    axes.plot(RATES, milliseconds, "o-", label=name)
    print(
        f"{name}: {milliseconds[0]:.1f} ms at rate 0, "
        f"{milliseconds[5]:.1f} ms at 0.5, {milliseconds[9]:.1f} ms at 0.9"
    )
axes.set(xlabel="rate", ylabel="forward and backward, ms", ylim=(0, None))
axes.legend()
plt.show()

# %%
# At rate 0 the ReLU alone makes half of the hidden values zero, which is skipped, too.
# ``bench/fit.py`` measures this beside PyTorch, JAX and NumPy.
