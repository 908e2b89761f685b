"""What made format_2.npz and format_2.json, which says what the file holds.

It is kept to be read, not to be run again: the files stay as they are for as long as any release
reads format 2.
"""

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np

import dropwise as dw
from dropwise.network import files

HERE = Path(__file__).parent

net = dw.Sequential(
    [
        dw.Sequential(
            [dw.Dense(3, 8, l1=0.001, bias_l2=0.5, init=0.25, dtype="float16"), dw.Tanh()]
        ),
        dw.Dropout(0.25, noise_shape=(None, 1)),
        dw.Dense(8, 6, dtype="bfloat16"),
        dw.Sequential([dw.Sigmoid(), dw.Dropout(0.5, scaling="vanilla", save_mask=False)]),
        dw.Dense(6, 4, dtype="float64", skip_zeros=False),
        dw.ReLU(),
        dw.Dense(4, 2, init="lecun_uniform", dtype="float64"),
    ],
    seed=5,
)
net.notes = {"classes": ["left", "right"], "scale": 0.1}
adam = dw.Adam(0.01, beta_2=0.99, decay=1e-4, weight_decay=0.125)
rng = np.random.default_rng(1)
x = rng.standard_normal((40, 3))
y = (x[:, 0] > 0).astype(int)
options = {"loss": dw.SoftmaxCrossEntropy(), "optimizer": adam, "batch_size": 16, "progress": False}
net.fit(x, y, epochs=2, **options)
checkpoint = HERE / "format_2.npz"
run = net.iter_fit(
    x,
    y,
    loss=options["loss"],
    optimizer=adam,
    batch_size=16,
    epochs=5,
    validation_data=(x[:10], y[:10]),
    patience=3,
    restore_best=True,
    checkpoint=checkpoint,
)
next(run), next(run)  # the file is that of a training that goes on


def plain(state):
    return {
        name: value.astype(float).tolist() if isinstance(value, np.ndarray) else value
        for name, value in state.items()
    }


loaded, _ = files.load(checkpoint)
HERE.joinpath("format_2.json").write_text(
    json.dumps(
        {
            "config": net.config(),
            "notes": net.notes,
            "network": plain(net.state_dict()),
            "optimizer": plain(adam.state_dict()) | {"config": adam.config()},
            "history": [astuple(epoch) for epoch in net.history],
            "best": {
                "loss": loaded.unfinished.loss,
                "epoch": loaded.unfinished.epoch,
                "parameters": [p.astype(float).tolist() for p in loaded.unfinished.parameters],
            },
            "predictions": net.predict(x[:3]).tolist(),
        }
    )
)
