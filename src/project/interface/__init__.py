"""Types shared by all packages: batches, and the description of a dataset's inputs and targets.

The datamodule creates a `DataDescription` from the data. The module builds the network from it, and checkpoints and
exported models store it, so that they are self-contained. To support another kind of input or target, subclass `Input`
or `Target` in any file. This package does not import torch.
"""

from project.interface.batch import SPLITS, Batch, Split, StageResult
from project.interface.class_target import ClassTarget
from project.interface.description import FORMAT_VERSION, DataDescription, import_object, import_part
from project.interface.inputs import Fit, GraphInput, ImageInput, Input, PixelType, Source, to_size
from project.interface.multilabel_target import MultilabelTarget
from project.interface.target import Target
from project.interface.trainer import data_of, module_of, test_folder, time_limit
from project.interface.value_target import ValueTarget

__all__ = [
    "FORMAT_VERSION",
    "SPLITS",
    "Batch",
    "ClassTarget",
    "DataDescription",
    "Fit",
    "GraphInput",
    "ImageInput",
    "Input",
    "MultilabelTarget",
    "PixelType",
    "Source",
    "Split",
    "StageResult",
    "Target",
    "ValueTarget",
    "data_of",
    "import_object",
    "import_part",
    "module_of",
    "test_folder",
    "time_limit",
    "to_size",
]

for _class in (ImageInput, ClassTarget, MultilabelTarget, ValueTarget):
    _class.__module__ = __name__  # checkpoints name these classes, wherever their files are
