"""What made format_1.npz, with the first version of the package, which wrote format 1.

It is kept to be read, not to be run again.
"""

import numpy as np

import dropwise as dw

net = dw.Sequential(
    [
        dw.Dense(3, 8, l2=0.001, init="he_normal"),
        dw.ReLU(),
        dw.Dropout(0.25, scaling="vanilla"),
        dw.Dense(8, 6),
        dw.Dropout(0.5, noise_shape=(1, None), save_mask=False),
        dw.Sequential([dw.Dense(6, 4, dtype="float32", skip_zeros=False), dw.ReLU()]),
        dw.Dense(4, 2),
    ],
    seed=5,
)
rng = np.random.default_rng(1)
x = rng.standard_normal((40, 3)).astype(np.float32)
y = (x[:, 0] > 0).astype(int)
net.fit(
    x,
    y,
    loss=dw.SoftmaxCrossEntropy(),
    optimizer=dw.Adam(0.01),
    epochs=3,
    batch_size=16,
    progress=False,
)
net.save("format_1.npz")
print(net.predict(x[:3]).tolist(), net.state_dict()["epochs_done"], net.layers[2].state_dict())
