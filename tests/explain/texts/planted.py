"""Made texts in which one word decides the class, and networks trained on them."""

import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from project.interface import ClassTarget, DataDescription
from project.modules import Classifier
from project.modules.networks.texts import ByteNet
from project.texts import TextInput

PLANTED = {"english": ("awful", "great"), "chinese": ("坏", "好")}
OTHERS = {
    "english": ["we", "saw", "it", "with", "them", "yesterday,", "at", "the", "old", "house", "near", "a", "river"],
    "chinese": list("我昨天去看了一部电影在城里和朋友一起座位音乐故事"),
}
CLASSES = ClassTarget(["negative", "positive"], [1, 1])


def planted(language: str, count: int, seed: int = 0) -> list[tuple[list[str], int, int]]:
    """Return texts as words with the blanks that follow them, the place of the deciding word, and the class."""
    rng, blank = random.Random(seed), " " if language == "english" else ""
    found = []
    for _ in range(count):
        words = rng.choices(OTHERS[language], k=rng.randint(5, 14))
        place, label = rng.randrange(len(words)), rng.randrange(2)
        words[place] = PLANTED[language][label]
        found.append(([*(word + blank for word in words[:-1]), words[-1]], place, label))
    return found


def write_texts(rows: Sequence[Sequence[Any]]) -> None:
    """Write texts.csv."""
    with Path("texts.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


class Slots(nn.Module):
    """A network with several kinds of lookups: a convolution over bytes, and hashed words moved to the front."""

    def __init__(self, num_classes: int, inputs: TextInput) -> None:
        super().__init__()
        self.bytes, self.words = nn.Embedding(256, 16, padding_idx=0), nn.Embedding(4096, 16, padding_idx=0)
        self.conv, self.head = nn.Conv1d(16, 32, 5, padding=2), nn.Linear(48, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map bytes, uint8 (N, L), to logits."""
        code = x.long()
        known = code > 0
        start = (code > 32) & (F.pad(code, (1, 0))[:, :-1] <= 32) | (code >= 0xC0)
        slot = start.cumsum(1) * (code > 32)
        hashed = torch.zeros(len(x), int(slot.max()) + 1, dtype=torch.int64)
        place = torch.arange(x.shape[1]) % 7 + 1
        hashed = hashed.scatter_add(1, slot, code * code * place)[:, 1:]
        words = self.words(hashed % 4095 + 1) * (hashed > 0)[..., None]
        local = self.conv((self.bytes(code) * known[..., None]).transpose(1, 2)).relu() * known[:, None]
        return self.head(torch.cat([words.sum(1), local.amax(2)], 1))


@dataclass(frozen=True)
class WordInput(TextInput):
    """Texts as numbers of words between two special tokens, as of a tokenizer."""

    def read(self, sample: Any) -> NDArray[Any]:
        vocabulary = known_words()
        words = [vocabulary.setdefault(word, len(vocabulary) + 3) for word in str(sample).split()]
        return np.array([1, *words[: self.max_bytes], 2])

    def render(self, sample: NDArray[Any]) -> str:
        names = {number: word for word, number in known_words().items()}
        return " ".join(names[number] for number in sample.tolist() if number > 2)


@cache
def known_words() -> dict[str, int]:
    """Return the numbers of the words that were read so far."""
    return {}


class Attention(nn.Module):
    """A small transformer with embeddings of tokens and of positions."""

    def __init__(self, num_classes: int, inputs: WordInput) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(200, 32, padding_idx=0), nn.Embedding(64, 32)
        self.layer = nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=True)
        self.head = nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, int64 (N, L), to logits."""
        places = torch.arange(x.shape[1]).expand(len(x), -1)
        hidden = self.layer(self.tokens(x) + self.places(places), src_key_padding_mask=x == 0)
        return self.head((hidden * (x > 0)[..., None]).sum(1) / (x > 0).sum(1, keepdim=True))


NETS: dict[str, tuple[Callable[..., nn.Module], TextInput]] = {
    "ByteNet": (ByteNet, TextInput()),
    "Slots": (Slots, TextInput()),
    "Attention": (Attention, WordInput()),
}


@cache
def trained(name: str, language: str = "english", steps: int = 60) -> Classifier:
    """Return a network of NETS trained on planted texts."""
    torch.manual_seed(0)
    net, inputs = NETS[name]
    model = Classifier(net)
    model.set_data_description(DataDescription(inputs, CLASSES))
    model.configure_model()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(steps):
        words, _, label = zip(*planted(language, 32, seed=step + 1), strict=True)
        optimizer.zero_grad()
        F.cross_entropy(model(batch(model, words)), torch.tensor(label)).backward()
        optimizer.step()
    model.eval()
    words, _, label = zip(*planted(language, 64), strict=True)
    with torch.no_grad():
        assert (model(batch(model, words)).argmax(1) == torch.tensor(label)).float().mean() > 0.95, "it did not learn"
    return model


def batch(model: Classifier, texts: Sequence[Sequence[str]]) -> Tensor:
    """Return texts, given as words, as a batch."""
    inputs = model.data_description.input
    return torch.from_numpy(inputs.stack([inputs.read("".join(words)) for words in texts]))
