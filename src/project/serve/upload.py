"""From the body of a request to a picture."""

import base64
import binascii
import json
import logging
from typing import Any

import simplejpeg
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import create_form_parser
from starlette.exceptions import HTTPException

for library in ("PIL", "python_multipart"):
    logging.getLogger(library).setLevel(logging.CRITICAL)  # whoever sent it is told


def encoded_image(content_type: str, body: bytes) -> bytes:
    """Return the file of a picture that a body holds, or refuse it."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind == "application/octet-stream":
        return body
    if kind == "multipart/form-data":
        return _from_form(content_type, body)
    if kind != "application/json":
        raise HTTPException(
            415, "send a picture as image/*, as the field `image` of multipart/form-data, or in base64 in JSON"
        )
    try:
        return base64.b64decode(json.loads(body)["image"], validate=True)
    except binascii.Error as error:
        raise HTTPException(400, f"`image` is not base64: {error}") from error
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise HTTPException(400, 'the body is not {"image": "a picture in base64"}') from error


def is_small(data: bytes) -> bool:
    """Return whether it is a JPEG of so few pixels that decoding it takes less time than handing it to a thread."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return bool(height * width <= 128 * 128)


def _from_form(content_type: str, body: bytes) -> bytes:
    files: list[Any] = []
    limits = {"MAX_MEMORY_FILE_SIZE": len(body) + 1, "MAX_FIELDS": 16}  # nothing goes to the disk
    headers = {"Content-Type": content_type.encode("latin-1")}
    try:
        parser = create_form_parser(headers, lambda _: None, files.append, limits)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, KeyError) as error:
        raise HTTPException(400, f"cannot read the form: {error}") from error
    for file in files:
        if file.field_name == b"image":
            file.file_object.seek(0)
            return bytes(file.file_object.read())
    raise HTTPException(400, "the form has no file in a field named `image`")
