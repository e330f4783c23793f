"""ByteNet: independence of padding and batch, export, and what it can tell apart."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from project.modules.networks.texts import ByteNet
from project.modules.networks.texts.bytenet import hash_words
from project.texts import TextInput

TEXTS = [
    "",
    "a",
    "Turn the lights off!",
    "caf\u00e9 na\u00efve",
    "打开厨房的灯，谢谢",
    "iPhone很好 \U0001f600",
    "good " * 60,
]
INPUT = TextInput(1024)


@pytest.fixture
def net() -> ByteNet:
    """A network whose weights are all random, as after training."""
    torch.manual_seed(0)
    net = ByteNet(5, INPUT, rows=2**12).eval()
    net.head.reset_parameters()
    return net


def batch(texts: list[str], longer: int = 0) -> torch.Tensor:
    """Return texts as uint8 (N, bytes), padded with `longer` further zeros."""
    stacked = INPUT.stack([INPUT.read(text) for text in texts])
    return torch.from_numpy(np.pad(stacked, ((0, 0), (0, longer))))


@torch.inference_mode()
def test_logits_depend_neither_on_padding_nor_on_the_batch(net: ByteNet) -> None:
    together = net(batch(TEXTS))
    alone = torch.cat([net(batch([text])) for text in TEXTS])
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(net(batch(TEXTS, longer=37)), together, atol=1e-6, rtol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(batch(TEXTS)).isfinite().all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stop pots tops", 3),
        ("it's 5 o'clock.", 4),
        ("na\u00efve für друг", 3),
        ("打开the灯，", 5),
        ("\U0001f600好", 2),
        ("", 0),
    ],
)
def test_words_are_runs_of_letters_or_single_characters(text: str, words: int) -> None:
    hashes = hash_words(batch([text, "stop"]).long())
    assert len(set(hashes[0].tolist()) - {0}) == words


@torch.inference_mode()
def test_texts_that_differ_in_words_or_their_order_have_different_logits(net: ByteNet) -> None:
    texts = ["dog bites man", "man bites dog", "dog bites men", "dogbites man", "我喜欢你", "你喜欢我", "我喜欢他"]
    logits = net(batch(texts))
    distances = torch.cdist(logits, logits) + torch.eye(len(texts))
    assert distances.min() > 1e-3
    same = net(batch(["Dog  BITES man", "dog bites man"]))
    torch.testing.assert_close(same[0, :], same[1, :], atol=1e-5, rtol=1e-5)


def test_the_row_of_no_ngram_stays_zero_in_training(net: ByteNet) -> None:
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(batch(TEXTS)).square().sum().backward()
        optimizer.step()
    assert not net.table.weight[0].any() and net.table.weight[1:].any()


@pytest.mark.slow
def test_onnx_gives_the_same_logits_for_any_batch_and_length(net: ByteNet, tmp_path: Path) -> None:
    dimensions = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    file = tmp_path / "net.onnx"
    torch.onnx.export(net, (batch(TEXTS),), file, dynamo=True, dynamic_shapes=(dimensions,), verbose=False)
    session = onnxruntime.InferenceSession(file)
    for texts in (TEXTS, [""], ["a", "b"], TEXTS[2:3], ["好" * 300] * 3):
        inputs = batch(texts)
        (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        with torch.inference_mode():
            assert np.abs(found - net(inputs).numpy()).max() < 1e-5
