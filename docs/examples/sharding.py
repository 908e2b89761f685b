"""
One mask, cut in any way
========================

Which elements are dropped follows from a key, the number of the call and an element's index in
the *global* array.  So every worker makes the mask of its own part, knows nothing of the others,
and all parts together are the mask that one process would have made.
"""

import matplotlib.pyplot as plt
import numpy as np

import dropwise as dw

KEY, RATE, SHAPE = dw.random.key_from_seed(1), 0.4, (24, 60)

# %%
# ``within`` says where a part begins in each dimension, and how large the whole is.

starts = [(0, 0), (0, 17), (0, 45), (9, 0), (9, 29), (16, 0)]
ends = [(9, 17), (9, 45), (9, 60), (16, 29), (16, 60), (24, 60)]

whole = dw.functional.dropout_mask(SHAPE, RATE, key=KEY)
glued = np.zeros(SHAPE, bool)
worker = np.zeros(SHAPE, int)
for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
    part = tuple(slice(a, b) for a, b in zip(start, end, strict=True))
    shape = glued[part].shape
    glued[part] = dw.functional.dropout_mask(shape, RATE, key=KEY, within=(start, SHAPE))
    worker[part] = number
print("the same mask:", np.array_equal(whole, glued))

# %%
# The same holds for a batch that is cut into rows of any number for several workers:
# ``first_row`` says which rows a worker has.  Their results are those of the whole batch.

x = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)


def network() -> dw.Sequential:
    """The same network for every worker."""
    return dw.Sequential([dw.Dense(8, 32), dw.ReLU(), dw.Dropout(0.5), dw.Dense(32, 3)], seed=1)


at_once = network().forward(x)
by_workers = [network().forward(x[rows : rows + 16], first_row=rows) for rows in range(0, 64, 16)]
print("largest difference:", np.abs(at_once - np.concatenate(by_workers)).max())

# %%
# Kept elements of each part in the colour of its worker.

figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
axes.imshow(np.where(glued, worker, np.nan), cmap="Set2", vmin=0, vmax=7, interpolation="nearest")
for start, end in zip(starts, ends, strict=True):
    size = end[1] - start[1], end[0] - start[0]
    axes.add_patch(plt.Rectangle((start[1] - 0.5, start[0] - 0.5), *size, fill=False, linewidth=2))
axes.set(title="six workers, one mask; white is dropped", xticks=[], yticks=[])
plt.show()
