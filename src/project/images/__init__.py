"""Image files: finding, decoding, and resizing. Does not import torch, so that exported models run without it."""

from project.images.decode import Decoded, Pixels, UnreadableImageError, decode, read_bytes, to_dtype, to_pixels
from project.images.find import describe_skipped, find_images, no_images
from project.images.render import to_image
from project.images.resize import Box, content_box, fit_pixels, visible_part

__all__ = [
    "Box",
    "Decoded",
    "Pixels",
    "UnreadableImageError",
    "content_box",
    "decode",
    "describe_skipped",
    "find_images",
    "fit_pixels",
    "no_images",
    "read_bytes",
    "to_dtype",
    "to_image",
    "to_pixels",
    "visible_part",
]
