"""Train, evaluate, explain and deploy classifiers of images and texts with PyTorch Lightning.

Inference takes three lines, see `project.runs.predictor`:

```python
import project
model = project.load("best.ckpt")
model.predict("photo.jpg")
```
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project.runs.predictor import Prediction, Predictor, load

__all__ = ["Prediction", "Predictor", "load"]


def __getattr__(name: str) -> Any:
    # Importing the package alone takes no time: NumPy and Pillow are imported on first use, torch with a checkpoint.
    if name in __all__:
        from project.runs import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
