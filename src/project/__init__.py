"""Image classification on PyTorch Lightning: point it at a folder of images, train, test, predict."""
