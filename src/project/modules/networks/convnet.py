"""The course's network."""

from torch import Tensor, nn

from project.interface import ImageInput


class ConvNet(nn.Module):
    """conv3x3(3, 64) - relu - pool - conv3x3(64, 128) - relu - pool - linear(512) - relu - linear(classes).

    Args:
        num_classes: Number of logits.
        inputs: The images, at least 4 pixels high and wide.
        dropout: Probability of dropping a hidden unit of the first linear layer, in [0, 1).

    Raises:
        ValueError: they are smaller: nothing is left after two poolings.
    """

    def __init__(self, num_classes: int, inputs: ImageInput, dropout: float = 0.0) -> None:
        super().__init__()
        if min(inputs.height, inputs.width) < 4:
            raise ValueError(f"ConvNet halves the image twice: image_size must be at least 4, got {inputs}")
        # Whether relu comes before the pool or after it, every value and every gradient is the same; after it, relu has
        # a quarter of the work.
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 128, kernel_size=3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(128 * (inputs.height // 4) * (inputs.width // 4), 512),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(512, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, 3, height, width) to logits (N, num_classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits
