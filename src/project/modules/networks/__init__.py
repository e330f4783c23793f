"""Networks: plain modules, built with (num_classes, inputs)."""
