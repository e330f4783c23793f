"""Image data: indexing, decoding, packing, augmentation and validation."""
