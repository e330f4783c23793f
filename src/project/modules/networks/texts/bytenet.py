"""A network on the raw bytes of a text."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.texts import TextInput

PRIME = 2**31 - 1
WIDE = 0xE3  # first byte of the characters from U+3000: Chinese, Japanese, Korean, and further ones such as emoji


class ByteNet(nn.Module):
    """Sum of the embeddings of hashed n-grams, and a shallow depthwise convolution over words; needs no tokenizer.

    The n-grams are words, pairs of words and, as word endings and compounds matter in most languages, runs of bytes in
    a word. A word is a run of letters and digits of any alphabet; punctuation marks, emoji and the characters of
    Chinese, Japanese and Korean are words of their own. Latin capitals count as small letters. In training, n-grams and
    words are dropped at random. The logits of a text depend neither on padding nor on the rest of the batch.

    Hashed word n-grams: Joulin et al., Bag of Tricks for Efficient Text Classification, 2016. Byte n-grams of words:
    Bojanowski et al., Enriching Word Vectors with Subword Information, 2017.

    Args:
        num_classes: Number of classes.
        inputs: Description of the texts.
        rows: Number of rows of the table of embeddings, which n-grams with the same hash share.
        width: Size of an embedding.
        channels: Number of channels after the convolution.
        dropout: Probability with which an n-gram is dropped in training, in [0, 1).
        word_dropout: Probability with which a word is dropped before the convolution in training, in [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        inputs: TextInput,
        rows: int = 2**17,
        width: int = 16,
        channels: int = 64,
        dropout: float = 0.7,
        word_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.dropout, self.word_dropout = dropout, word_dropout
        self.table = nn.Embedding(rows, width, padding_idx=0)
        nn.init.normal_(self.table.weight, std=1 / width)
        nn.init.zeros_(self.table.weight[0].detach())  # no n-gram
        self.conv = nn.Conv1d(width, width, kernel_size=5, padding=2, groups=width)
        self.mix = nn.Linear(width, channels)
        self.head = nn.Linear(width + 2 * channels, num_classes)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map bytes, uint8 (N, L) with zeros at the end, to logits (N, num_classes)."""
        codes = x.long()
        codes = torch.where((codes >= ord("A")) & (codes <= ord("Z")), codes + 32, codes)
        words = hash_words(codes)
        single = self._rows(words)
        ngrams = torch.cat([single, self._rows(hash_pairs(words)), *map(self._rows, hash_bytes(codes))], 1)
        count = (ngrams > 0).sum(1, keepdim=True).clamp(min=1)
        total = self.table(self._drop(ngrams, self.dropout)).sum(1)
        if self.training:
            total = total / (1 - self.dropout)
        logits: Tensor = self.head(torch.cat([total / count.sqrt(), *self._convolve(single)], 1))
        return logits

    def _rows(self, hashes: Tensor) -> Tensor:
        return (hashes % (self.table.num_embeddings - 1) + 1) * (hashes > 0)

    def _drop(self, rows: Tensor, probability: float) -> Tensor:
        return rows * (torch.rand(rows.shape, device=rows.device) >= probability) if self.training else rows

    def _convolve(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and maximum over the words, each (N, channels)."""
        rows = self._drop(rows, self.word_dropout)
        known = (rows > 0)[..., None]
        mixed = torch.relu(self.mix(self.conv(self.table(rows).transpose(1, 2)).transpose(1, 2))) * known
        return mixed.sum(1) / known.sum(1).clamp(min=1), mixed.amax(1)


def hash_words(codes: Tensor) -> Tensor:
    """Return hashes of the words of texts, int64 (N, words) in [0, PRIME), 0 after the last word, from bytes (N, L)."""
    letter = (codes >= 128) | ((codes >= ord("a")) & (codes <= ord("z"))) | ((codes >= ord("0")) & (codes <= ord("9")))
    letter = letter | (codes == ord("'"))
    wide = _in_wide(codes)
    alone = ~letter | (codes >= WIDE) | (_shift(wide, 1) & ~wide)
    number = ((codes > 32) & (alone | ~_shift(letter, 1))).long().cumsum(1) * (codes > 32)  # of the word, from 1
    before, second = (_shift(codes, n) * (_shift(number, n) == number) for n in (1, 2))
    # The hash of a word is the sum of those of its runs of three bytes, which leaves little doubt about their order.
    run = (codes + 256 * before + 65536 * second) * 1000003 % PRIME
    longest = codes.shape[1] if torch.compiler.is_exporting() else max(1, int(number.max()))
    sums = run.new_zeros(codes.shape[0], longest + 1).scatter_add(1, number, run * run % PRIME)
    return sums[:, 1:] % PRIME


def hash_pairs(words: Tensor) -> Tensor:
    """Return hashes of neighbouring words, int64 (N, words + 1), 0 after the last one.

    The start of the text and its first word are a pair, and so are its last word and the end.
    """
    before, after = F.pad(words, (1, 0)), F.pad(words, (0, 1))
    return (before * 31337 + after + 1) % PRIME * ((before > 0) | (after > 0))


def hash_bytes(codes: Tensor) -> list[Tensor]:
    """Return hashes of runs of 3, 4 and 5 bytes of words, with a blank before and after each, int64 (N, L + 1) each."""
    blank = (codes <= 32) | _in_wide(codes)
    codes, blank = F.pad(codes.masked_fill(blank, 32), (1, 4), value=32), F.pad(blank, (1, 4), value=True)
    length, hashes = codes.shape[1] - 4, []
    run, within = codes[:, :length] * 1009 + codes[:, 1 : length + 1], ~blank[:, 1 : length + 1]
    for size in (3, 4, 5):
        run = run * 1009 + codes[:, size - 1 : size - 1 + length]
        hashes.append((run * 3 + size) % PRIME * within)
        within = within & ~blank[:, size - 1 : size - 1 + length]
    return hashes


def _in_wide(codes: Tensor) -> Tensor:
    """Return the bytes that belong to characters of three or four bytes from U+3000."""
    lead = codes >= WIDE
    return lead | _shift(lead, 1) | _shift(lead, 2) | _shift(codes >= 0xF0, 3)


def _shift(values: Tensor, places: int) -> Tensor:
    """Return values (N, L) moved towards the end, with zeros at the start."""
    return F.pad(values, (places, 0))[:, : values.shape[1]]
