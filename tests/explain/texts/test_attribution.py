"""Attribution to words on made texts in which one word decides the class."""

import pytest
import torch
from torch import nn

from project.errors import UserError
from project.explain.texts.attribution import METHODS, Method, attribution, faithfulness, outputs_of, random_attribution
from project.explain.texts.overlays import overlays
from project.interface import DataDescription
from project.modules import Classifier
from project.texts import TextInput
from project.texts.words import split_words
from tests.explain.texts.planted import CLASSES, batch, planted, trained


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("net", "language"),
    [("ByteNet", "english"), ("ByteNet", "chinese"), ("Slots", "chinese"), ("Attention", "english")],
)
def test_the_word_that_decides_has_the_highest_attribution(net: str, language: str, method: Method) -> None:
    model, hits, better = trained(net, language), 0, torch.zeros(2)
    texts = planted(language, 20)
    for number, (words, place, label) in enumerate(texts):
        values = attribution(model, words, [label, 1 - label], method)
        hits += int(values[0].argmax()) == place and float(values[1, place]) < 0
        own, baseline = faithfulness(model, words, torch.stack([values[0], random_attribution(words, number)]), label)
        better += torch.tensor([own[0] < baseline[0], own[1] > baseline[1]]).float()
    assert hits >= 18
    assert (better >= 16).all(), "more faithful than a random order"


@pytest.mark.parametrize(("net", "blank"), [("ByteNet", [0]), ("Slots", [0, 32]), ("Attention", [1, 2])])
def test_integrated_gradients_sum_to_the_difference_to_a_text_without_embeddings(net: str, blank: list[int]) -> None:
    model = trained(net)
    words = planted("english", 1, seed=5)[0][0]
    values = attribution(model, words, [0, 1], "integrated_gradients")
    embeddings = [module for module in model.net.modules() if isinstance(module, nn.Embedding)]
    inputs = batch(model, [words])
    kept = torch.isin(inputs, torch.tensor(blank))[..., None]

    def remove(module: nn.Module, given: object, output: torch.Tensor) -> torch.Tensor:
        return output * kept if kept.shape[:2] == output.shape[:2] else output * 0

    with torch.no_grad():
        whole = model(inputs)[0]
        hooks = [module.register_forward_hook(remove) for module in embeddings[: 1 if net == "Attention" else 2]]
        without = model(inputs)[0]
        for hook in hooks:
            hook.remove()
    assert torch.allclose(values.sum(1), whole - without, rtol=0.05, atol=0.02)


def test_words_are_those_of_the_language_and_joined_give_the_text() -> None:
    for text, words in {
        "I saw  it.": ["I ", "saw  ", "it."],
        "我喜欢 it，好!": ["我", "喜", "欢 ", "it，", "好", "!"],
        "한국어 です": ["한", "국", "어 ", "で", "す"],
        " a": [" a"],
        " ": [" "],
        "": [],
    }.items():
        assert split_words(text) == words
    assert split_words("a b c d e", 2) == ["a b c ", "d e"] and split_words("a b", 2) == ["a ", "b"]


def test_texts_that_are_empty_cut_or_hostile_and_networks_without_embeddings() -> None:
    model = trained("ByteNet")
    for method in METHODS:
        assert attribution(model, [], [0], method).shape == (1, 0)
        (value,) = attribution(model, ["great"], [1], method)
        assert value > 0
        assert attribution(model, split_words("😀 <b>" * 300, 256), [0, 1], method).isfinite().all()
    assert len(faithfulness(model, [], torch.zeros(2, 0), 0)) == 2
    found = overlays(model, batch(model, [["a great ", "house"], ["", ""]]), torch.tensor([1, 0]), 160)
    assert [word for word, _ in found[0]] == ["a ", "great ", "house"] and dict(found[0])["great "] == 1.0
    assert found[1] == []

    class Lengths(nn.Module):
        def __init__(self, num_classes: int, inputs: TextInput) -> None:
            super().__init__()
            self.head = nn.Linear(1, num_classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head((x > 0).float().mean(1, keepdim=True))

    plain = Classifier(Lengths)
    plain.set_data_description(DataDescription(TextInput(), CLASSES))
    plain.configure_model()
    with pytest.raises(UserError, match="Lengths looks up none: try --methods occlusion"):
        attribution(plain.eval(), ["a ", "b"], [0], "integrated_gradients")
    assert outputs_of(plain, ["a"]).shape == (1, 2)
