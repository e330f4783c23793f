"""A network on raw bytes."""

import torch
from torch import Tensor, nn

from project.texts import TextInput


class ByteNet(nn.Module):
    """Embeddings of hashed byte n-grams, averaged, and a linear layer.

    Args:
        num_classes: Number of classes.
        inputs: Description of the texts.
        rows: Number of rows of the table of embeddings.
        width: Size of an embedding.
    """

    def __init__(self, num_classes: int, inputs: TextInput, rows: int = 2**16, width: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, width)
        nn.init.normal_(self.table.weight, std=1 / width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map bytes, uint8 (N, L) with zeros at the end, to logits (N, num_classes)."""
        codes = x.long()
        hashed, total, count = torch.zeros_like(codes), 0.0, torch.ones(x.shape[0], 1, device=x.device)
        for n in range(1, 6):
            if codes.shape[1] < n:
                break
            hashed = (hashed[:, : codes.shape[1] - n + 1] * 31337 + codes[:, n - 1 :] + n) % 2147483647
            known = (codes[:, n - 1 :] > 0)[..., None]
            total = total + (self.table(hashed % self.table.num_embeddings) * known).sum(1)
            count = count + known.sum(1)
        logits: Tensor = self.head(total / count.sqrt())
        return logits
