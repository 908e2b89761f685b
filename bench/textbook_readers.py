"""Scripts of readers of the three texts, with the reader's own classes and with this package's.

    python3 bench/textbook_readers.py DIR [--only NAME]

DIR holds checkouts of the public repositories that JUDGES names, as ``owner+name``.  Each is copied
to a temporary folder twice, one copy gets the line of docs/textbooks.md, and its script runs in
both after the same ``np.random.seed``.  Printed are the lines with figures, and the times.

Nothing of the repositories is part of this project.  They are others' programs: read one before you
run it.  Data that a script would download are made up in the shape of the real ones; imports that
a run does not use are replaced by empty modules; long trainings are shortened by `replace`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DLFS = "from dropwise.textbook.dlfs import *"
NNFS = "from dropwise.textbook.nnfs import *"
COURSE = "from dropwise.textbook.cs231n import *"
COURSE_2017 = "from dropwise.textbook.cs231n_2017 import *"

# A run: the seed, the folder for modules that stand in for others, and the script.
START = """
import os, runpy, sys, types, warnings
import numpy as np
seed, script, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
here = os.path.dirname(os.path.abspath(script))
sys.path[:0] = [here, os.path.dirname(here), folder]
for name in ("cv2", "h5py", "imageio", "turtle", "urllib2"):
    try:
        __import__(name)
    except Exception:
        module = sys.modules[name] = types.ModuleType(name)
        module.__getattr__ = lambda name: None
warnings.simplefilter("ignore")
import builtins
builtins.xrange = range
reshape = np.reshape
np.reshape = lambda a, shape=None, newshape=None: reshape(a, shape or newshape)
try:
    import scipy.misc
    scipy.misc.imread = scipy.misc.imresize = None  # of SciPy before 1.2
except ImportError:
    pass
for name, kind in (("float", float), ("int", int), ("bool", bool)):
    if name not in np.__dict__:  # of NumPy before 1.24
        setattr(np, name, kind)
sys.argv = [script]
np.random.seed(seed)
runpy.run_path(script, run_name="__main__")
"""


def digits(root: Path) -> None:
    """Made-up images in the place of MNIST's: 1000 to train, 500 to test."""
    rng = np.random.default_rng(0)
    means = rng.integers(0, 256, (10, 784)) * (rng.random((10, 784)) < 0.19)
    data = {}
    for part, count in (("train", 1000), ("test", 500)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        noise = rng.random((count, 784))
        data[f"{part}_img"] = (means[labels] * noise).astype(np.uint8)
        data[f"{part}_label"] = labels
    for folder in [root / "dataset", *root.glob("chapter*/dataset"), *root.glob("sample/dataset")]:
        folder.mkdir(exist_ok=True)
        (folder / "mnist.pkl").write_bytes(pickle.dumps(data))


CLOTHES = """
def images():
    import numpy as np
    rng = np.random.default_rng(0)
    means = rng.integers(0, 256, (10, 28, 28))
    parts = []
    for count in (2000, 500):
        y = rng.integers(0, 10, count).astype("uint8")
        noise = 300 * rng.standard_normal((count, 28, 28))
        parts += [np.clip(means[y] + noise, 0, 255).astype("uint8"), y]
    return parts
"""


def clothes(root: Path) -> None:
    """Made-up images in the place of Fashion-MNIST's, and the reader's saved models at hand."""
    (root / "made_up.py").write_text(CLOTHES, encoding="utf-8")
    for folder in root.glob("code_snippets"):
        for saved in [*root.glob("*.model"), *root.glob("*.parms")]:
            shutil.copy(saved, folder)


def words(root: Path) -> None:
    """A made-up text of 60 words in the place of the Penn Treebank."""
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(60)]
    follow = rng.permutation(60)
    for part, count in (("train", 60000), ("valid", 800), ("test", 800)):
        now, text = 0, []
        for _ in range(count):
            text.append(now)
            now = follow[now] if rng.random() < 0.8 else rng.integers(60)
        np.save(root / "dataset" / f"ptb.{part}.npy", np.array(text))
    pair = {w: i for i, w in enumerate(vocabulary)}, dict(enumerate(vocabulary))
    (root / "dataset" / "ptb.vocab.pkl").write_bytes(pickle.dumps(pair))


PICTURES = """
def get_CIFAR10_data(*args, **kwargs):
    import numpy as np
    rng = np.random.default_rng(0)
    means = 1.0 * rng.standard_normal((10, 3, 32, 32))
    data = {}
    for name, n in (("train", 600), ("val", 300), ("test", 300)):
        data["y_" + name] = labels = rng.integers(0, 10, n)
        data["X_" + name] = means[labels] + 12 * rng.standard_normal((n, 3, 32, 32))
    return data


def load_CIFAR10(root):
    import numpy as np
    rng = np.random.default_rng(0)
    means = rng.uniform(110, 146, (10, 8, 8, 3)).repeat(4, axis=1).repeat(4, axis=2)
    parts = []
    for n in (900, 300):
        labels = rng.integers(0, 10, n)
        images = means[labels] + 30 * rng.standard_normal((n, 32, 32, 3))
        parts += [images.clip(0, 255), labels]
    return tuple(parts)
"""


def pictures(root: Path) -> None:
    """Made-up images in the place of CIFAR-10's."""
    for path in root.rglob("cs231n/data_utils.py"):
        path.write_text(path.read_text(encoding="utf-8") + PICTURES, encoding="utf-8")


CAPTIONS = """
def load_coco_data(base_dir=None, max_train=None, pca_features=True):
    rng = np.random.default_rng(0)
    words = ["<NULL>", "<START>", "<END>", "<UNK>", *(f"w{i}" for i in range(60))]
    data = {"idx_to_word": words, "word_to_idx": {word: i for i, word in enumerate(words)}}
    for split, n in (("train", 400), ("val", 100)):
        captions = rng.integers(4, len(words), (n, 17))
        captions[:, 0], captions[:, -1] = 1, 2
        data[split + "_captions"], data[split + "_image_idxs"] = captions, np.arange(n)
        data[split + "_features"] = rng.standard_normal((n, 512)).astype(np.float32)
        data[split + "_urls"] = np.array(["none"] * n)
    if max_train is not None:
        rows = np.random.randint(len(data["train_captions"]), size=max_train)
        for name in ("train_captions", "train_image_idxs"):
            data[name] = data[name][rows]
    return data
"""
NO_IMAGE = """
def image_from_url(url):
    import numpy as np
    return np.zeros((4, 4, 3))
"""


def captions(root: Path) -> None:
    """Made-up features and captions in the place of COCO's."""
    for name, code in (("coco", CAPTIONS), ("image", NO_IMAGE)):
        for path in root.rglob(f"assignment3/cs231n/{name}_utils.py"):
            path.write_text(path.read_text(encoding="utf-8") + code, encoding="utf-8")


@dataclass(frozen=True)
class Judge:
    """A script of a reader."""

    repository: str
    commit: str
    year: int  # that the script is of
    line: str
    where: str | tuple[str, ...]  # the files that get the line, under their classes
    scripts: tuple[str, ...]
    data: Callable[[Path], None] | None = None
    replace: tuple[tuple[str, str], ...] = ()  # patterns in the scripts
    second: str = ""  # the second line, for a script with an initialisation of its own


EPOCHS = (r"\b10_?001\b", "1001"), (r"epochs\s*=\s*10000\b", "epochs=1000")
IMAGES = r"(?<!def )create_(data_mnist|mnist_data)\([^)]*\)", '__import__("made_up").images()'
SAVED = (
    r"(?m)^model = Model.load.*",
    "train_new_model('p')\ncreate_and_load_model('p')\nmodel = Model.load('fashion_mnist.model')\n"
    "model.evaluate(X_test, y_test)\nraise SystemExit",
)
SNIPPETS = "mattcoulter7/Neural-Networks-From-Scratch-in-Python", "1670a9f", 2022, NNFS
CLASSES = tuple(
    f"code_snippets/{name}.py"
    for name in (
        "Activation_ReLU", "Activation_Softmax", "Layer_Dense", "Layer_Dropout", "Optimizer_Adam",
        "Activation_Softmax_Loss_CategoricalCrossentropy", "Loss_CategoricalCrossentropy",
    )
)  # fmt: skip
PAGES = tuple(f"code_snippets/page-{n}.py" for n in (500, 510, 598, 607, 610, 615, 621))
WHOLE = ((r"(\bN|num_train) / ", r"\1 // "),)  # of Python 2
WEIGHTS = "Layer_Dense.weight_scale = 0.1"
HX = "HX-1234/Neural-Networks-from-Scratch-in-Python", "5026e7d", 2023
LAYERS_ONLY = "from dropwise.textbook.nnfs import Activation_ReLu, Dropout, Layer_Dense"
WORDS = (
    (r"(wordvec_size|hidden_size) = 650", r"\1 = 64"),
    (r"max_epoch = 40", "max_epoch = 4"),
    (r"GPU = True", "GPU = False"),
    (r"colab=True", ""),
)
NOTEBOOK = "assignment2/Dropout.ipynb"
LAYERS = "assignment2/cs231n/layers.py"
FULLY = "assignment1/cs231n/layers.py"
TWO_LAYERS, FEATURES = "assignment1/two_layer_net.ipynb", "assignment1/features.ipynb"
FEWER = (
    ("num_training=49000, num_validation=1000", "num_training=600, num_validation=300"),
    ("num_test=1000", "num_test=300"),
    ("num_iters=1500", "num_iters=300"),
    (r"np\.random\.choice\(idxs, examples_per_class, replace=False\)", "idxs[:examples_per_class]"),
)
RNN = "assignment3/RNN_Captioning.ipynb"
FIRST = ("ch05/gradient_check.py", "ch06/overfit_dropout.py")
SECOND = ("ch06/train_better_rnnlm.py",)
CONVOLUTION = "ch07/train_convnet.py"
DEEP = (
    "ch07/gradient_check.py", CONVOLUTION,
    "ch08/train_deepnet.py", "ch08/misclassified_mnist.py", "ch08/half_float_network.py",
)  # fmt: skip
FEW = ((r"epochs\s*=\s*20\b", "epochs=3"),)
BOOK = "common/layers.py", FIRST, digits
BOOK_DEEP = "common/layers.py", DEEP, digits, FEW
BOOK_2 = "common/time_layers.py", SECOND, words, WORDS

JUDGES = [
    # Neural Networks from Scratch
    Judge("mikecon94/NNFS", "01e629a", 2021, NNFS, "examples/classification.py",
          ("examples/classification.py",), replace=EPOCHS),
    Judge("mikecon94/NNFS", "01e629a", 2021, NNFS, "neural-network.py", ("neural-network.py",),
          clothes, (IMAGES, SAVED), WEIGHTS),
    Judge("dpflores/nnfs", "7cbe393", 2022, NNFS, "mynnfs.py",
          ("p14_regularization.py", "p15_dropout.py"), replace=EPOCHS),
    Judge(*SNIPPETS, CLASSES, PAGES, clothes, (*EPOCHS, IMAGES)),
    Judge("TheRealAakash/NNFS", "cf09fca", 2023, NNFS, "Network/full.py", ("Network/full.py",),
          replace=EPOCHS),
    Judge(*HX, NNFS, "8Dropout/NNFS_version8.py", ("8Dropout/NNFS_version8.py",), replace=EPOCHS),
    Judge(*HX, NNFS, "9Regression/NNFS_version9.py", ("9Regression/NNFS_version9.py",),
          replace=EPOCHS, second=WEIGHTS),
    Judge(*HX, LAYERS_ONLY, "10Model/NNFS_version10.py", ("10Model/NNFS_version10.py",),
          replace=EPOCHS, second=WEIGHTS),
    Judge("Al04ni/Neural-Networks-from-Scratch-in-Python", "51977d2", 2025, NNFS,
          "15_Dropout/02_Backward_Pass/main.py", ("15_Dropout/02_Backward_Pass/main.py",),
          replace=EPOCHS),
    Judge("Al04ni/Neural-Networks-from-Scratch-in-Python", "51977d2", 2025, NNFS,
          "18_Model_Object/main.py", ("18_Model_Object/main.py",), replace=EPOCHS),
    Judge("Al04ni/Neural-Networks-from-Scratch-in-Python", "51977d2", 2025, NNFS,
          "20_Model_Evaluation/main.py", ("20_Model_Evaluation/main.py",), clothes, (IMAGES,)),
    # Deep Learning from Scratch
    Judge("TanUkkii007/learning-deep-learning-from-scratch", "3a43a90", 2016, DLFS, *BOOK),
    Judge("kgsn1763/deep-learning-from-scratch", "c0871c7", 2017, DLFS, *BOOK),
    Judge("heavywatal/deep-learning-from-scratch", "2d09651", 2019, DLFS, *BOOK),
    Judge("showa-yojyo/deep-learning-from-scratch", "9dd8e0f", 2019, DLFS, *BOOK),
    Judge("youngerous/deep-learning-from-scratch", "0e45a9b", 2020, DLFS, *BOOK),
    Judge("samrullo/deep-learning-from-scratch", "4e392e4", 2021, DLFS, *BOOK),
    # its chapters 7 and 8
    Judge("TanUkkii007/learning-deep-learning-from-scratch", "3a43a90", 2016, DLFS,
          "common/layers.py", (CONVOLUTION,), digits, FEW),
    Judge("kgsn1763/deep-learning-from-scratch", "c0871c7", 2017, DLFS, *BOOK_DEEP),
    Judge("PandaDrunkard/deep-learning-from-scratch", "10d771a", 2018, DLFS,
          "sample/common/layers.py", tuple(f"sample/{name}" for name in DEEP), digits, FEW),
    Judge("HYEZ/deep-learning-from-scratch", "babd369", 2020, DLFS, "common/layers.py",
          ("ch7/train_convnet.py", "ch8/train_deepnet.py"), digits, FEW),
    Judge("munablamu/DeepLearningFromZero_01_theorem", "e9d552a", 2023, DLFS, "common/layers.py",
          (CONVOLUTION, "ch08/train_deepnet.py"), digits, FEW),
    Judge("hisa-lab/deep-learning-ht23a064", "a4a1b45", 2025, DLFS, "common/layers.py", DEEP,
          digits, (*FEW, (r'"ch08/', '"'))),
    # its second volume
    Judge("tnakae/DLFS2-practice", "8f7414d", 2018, DLFS, *BOOK_2),
    Judge("nownabe/DeepLearningFromScratch2", "d13887c", 2018, DLFS, *BOOK_2),
    Judge("arrowkato/deep-learning-from-scratch-2", "46f4cd7", 2020, DLFS, *BOOK_2),
    Judge("HyeonGeunY/nlp_from_scratch", "834cd29", 2022, DLFS, *BOOK_2),
    Judge("Nokomon/deep-learning-from-scratch", "e9cabff", 2022, DLFS, *BOOK_2),
    Judge("inomata137/deep-learning-from-scratch-2", "2bb2971", 2023, DLFS, *BOOK_2),
    # CS231n
    Judge("Casey1203/cs231n-2016", "92df4fc", 2016, COURSE_2017, LAYERS, (NOTEBOOK,), pictures,
          WHOLE),
    Judge("Burton2000/CS231n-2017", "0a0bd01", 2017, COURSE_2017, LAYERS, (NOTEBOOK,), pictures),
    Judge("Aneureka/cs231n-assignments-2018", "cb4b294", 2018, COURSE, LAYERS, (NOTEBOOK,),
          pictures),
    Judge("Bachery/CS231n-2019spring", "c7cf3e2", 2019, COURSE, LAYERS, (NOTEBOOK,), pictures),
    Judge("BatyrM/CS231n-Spring-2020", "112ec76", 2020, COURSE, LAYERS, (NOTEBOOK,), pictures),
    Judge("Amapocho/CS231n-Spring-2021", "36eb0ec", 2021, COURSE, LAYERS, (NOTEBOOK,), pictures),
    Judge("AnirudhM1/CS231n-2022-Solutions", "7a5b494", 2022, COURSE, LAYERS, (NOTEBOOK,),
          pictures),
    Judge("kantarcise/cs231n", "d48f0ba", 2023, COURSE, f"src/{LAYERS}", (f"src/{NOTEBOOK}",),
          pictures),
    # its assignment 1, where this package's names occur from 2021 on
    Judge("Amapocho/CS231n-Spring-2021", "36eb0ec", 2021, COURSE, FULLY, (TWO_LAYERS,), pictures),
    Judge("AnirudhM1/CS231n-2022-Solutions", "7a5b494", 2022, COURSE, FULLY,
          (TWO_LAYERS, FEATURES), pictures, FEWER),
    Judge("kantarcise/cs231n", "d48f0ba", 2023, COURSE, f"src/{FULLY}", (f"src/{TWO_LAYERS}",),
          pictures),
    Judge("wrx-coder/CS231N", "2ba8e75", 2026, COURSE, f"assignments/{FULLY}",
          (f"assignments/{TWO_LAYERS}",), pictures),
    # its assignment 3
    Judge("Anner-deJong/CS231n_2016", "787850b", 2016, COURSE_2017, "assignment3/cs231n/layers.py",
          (RNN,), captions, WHOLE),
    Judge("Burton2000/CS231n-2017", "0a0bd01", 2017, COURSE_2017, "assignment3/cs231n/layers.py",
          (RNN,), captions),
    Judge("FortiLeiZhang/cs231n", "43867c4", 2018, COURSE,
          "code/cs231n/assignment3/cs231n/layers.py", (f"code/cs231n/{RNN}",), captions),
    Judge("Bachery/CS231n-2019spring", "c7cf3e2", 2019, COURSE, "assignment3/cs231n/layers.py",
          (RNN,), captions),
    Judge("BatyrM/CS231n-Spring-2020", "112ec76", 2020, COURSE, "assignment3/cs231n/layers.py",
          (RNN,), captions),
    Judge("Amapocho/CS231n-Spring-2021", "36eb0ec", 2021, COURSE,
          "assignment3/cs231n/rnn_layers.py", (RNN,), captions),
    Judge("AnirudhM1/CS231n-2022-Solutions", "7a5b494", 2022, COURSE,
          "assignment3/cs231n/rnn_layers.py", (RNN,), captions),
]  # fmt: skip


ALSO_REPLACED = (  # as in the script itself
    "common/config.py",
    "assignment2/cs231n/solver.py",
    "assignment3/cs231n/captioning_solver.py",
)


def as_script(notebook: Path) -> Path:
    """The code cells of a notebook, without the commands of its shell."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))
    cells = cells.get("cells") or cells["worksheets"][0]["cells"]
    code = ["".join(c.get("source", c.get("input", ""))) for c in cells if c["cell_type"] == "code"]
    code = [cell for cell in code if "google.colab" not in cell]
    unwanted = re.compile(r"\s*[%!]|from __future__")
    lines = [line for line in "\n".join(code).split("\n") if not unwanted.match(line)]
    script = notebook.with_suffix(".py")
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return script


def to_python_3(root: Path) -> None:
    """Rewrite what only Python 2 can read."""
    for path in root.rglob("*.py"):
        try:
            text = path.read_text(encoding="utf-8")
            ast.parse(text)
            known = "iteritems" not in text
        except (SyntaxError, UnicodeDecodeError):
            known = False
        if not known:
            fixers = ["print", "xrange", "dict", "imports", "except", "map", "has_key"]
            options = [option for fixer in fixers for option in ("-f", fixer)]
            command = [sys.executable, "-m", "lib2to3", "-w", "-n", *options, str(path)]
            subprocess.run(command, capture_output=True, check=False)


def put(line: str, path: Path) -> None:
    """Put the line under the last class or function of the file."""
    text = path.read_text(encoding="utf-8")
    definitions = [
        node
        for node in ast.parse(text).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.ImportFrom))
    ]
    lines = text.split("\n")
    end = definitions[-1].end_lineno or 0
    path.write_text("\n".join([*lines[:end], "", line, "", *lines[end:]]), encoding="utf-8")


def run(judge: Judge, script: str, checkout: Path, swapped: bool, seed: int) -> tuple[str, float]:
    """What the script prints, and the seconds that it takes."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "checkout"
        shutil.copytree(checkout, root, ignore=shutil.ignore_patterns(".git", "*.mp4", "*.pyc"))
        path = root / script
        if path.suffix == ".ipynb":
            path = as_script(path)
        to_python_3(root if judge.year < 2018 else path.parent)
        for each in (path, *(root / name for name in ALSO_REPLACED)):
            for pattern, new in judge.replace if each.exists() else ():
                text = re.sub(pattern, new, each.read_text(encoding="utf-8"))
                each.write_text(text, encoding="utf-8")
        if judge.data:
            judge.data(root)
        if swapped:
            for file in (judge.where,) if isinstance(judge.where, str) else judge.where:
                put(f"{judge.line}\n{judge.second}", root / file)
        stand_ins = Path(folder) / "modules"
        stand_ins.mkdir()
        environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", START, str(seed), str(path), str(stand_ins)]
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=path.parent, env=environment, capture_output=True, text=True, timeout=900
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1]}", seconds
    return done.stdout, seconds


def figures(printed: str) -> list[str]:
    """The last lines that have numbers in them."""
    if printed.startswith("failed"):
        return [printed]
    lines = [line.strip() for line in re.split(r"[\r\n]", printed) if re.search(r"\d", line)]
    errors = [float(e) for e in re.findall(r"error: +([\d.e+-]+)", printed)]
    worst = [f"largest of {len(errors)} errors: {max(errors):.1e}"] if errors else []
    return worst + lines[-3:]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--only", default="", help="part of a repository's or script's name")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for judge in JUDGES:
        checkout = args.checkouts / judge.repository.replace("/", "+")
        for script in judge.scripts:
            if args.only not in f"{judge.repository} {script}" or not checkout.is_dir():
                continue
            print(f"\n## {judge.repository} {judge.commit} ({judge.year}): {script}", flush=True)
            for swapped in (False, True):
                printed, seconds = run(judge, script, checkout, swapped, args.seed)
                print(f"{'dropwise' if swapped else 'own':9}{seconds:6.1f} s", flush=True)
                for line in figures(printed):
                    print(f"    {line[:150]}", flush=True)


if __name__ == "__main__":
    main()
