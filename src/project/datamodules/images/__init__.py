"""Images: finding, decoding, packing, augmenting, checking."""
