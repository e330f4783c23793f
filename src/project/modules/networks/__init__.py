"""Networks: `nn.Module` classes whose first two arguments are (num_classes, inputs)."""
