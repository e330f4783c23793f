"""The baseline ConvNet."""

from torch import Tensor, nn

from project.interface import ImageInput


class ConvNet(nn.Module):
    """Two convolutional and two linear layers.

    conv3x3(channels, 64) - relu - pool - conv3x3(64, 128) - relu - pool - linear(512) - relu - linear(classes)

    Args:
        num_classes: Number of classes.
        inputs: Image size and channels; height and width must be at least 4.
        dropout: Dropout probability after the first linear layer, in [0, 1).

    Raises:
        ValueError: If the images are too small for two poolings.
    """

    def __init__(self, num_classes: int, inputs: ImageInput, dropout: float = 0.0) -> None:
        super().__init__()
        if min(inputs.height, inputs.width) < 4:
            raise ValueError(f"ConvNet pools twice: image_size must be at least 4, got {inputs}")
        # ReLU after pooling gives the same values and gradients as before it, at a quarter of the cost.
        self.features = nn.Sequential(
            nn.Conv2d(inputs.channels, 64, kernel_size=3, padding=1),
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
        """Map float (N, channels, height, width) to logits (N, num_classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits
