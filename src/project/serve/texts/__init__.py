"""Requests with texts: limits, occlusion of words and examples."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from typing_extensions import override

from project.errors import UserError
from project.serve.handler import MAX_COPIES, Handler, Parsed, spread
from project.texts import TextInput, clean_text
from project.texts.files import read_texts
from project.texts.words import split_words

if TYPE_CHECKING:
    from project.serve.service import Settings

FORM = 'the body must be JSON of the form {"text": "TEXT"} or {"texts": ["TEXT", ...]}'


class TextHandler(Handler):
    """Reads one text or several from JSON, large ones in a thread."""

    page = Path(__file__).parent / "page"
    specification = page / "text.yaml"
    inputs: TextInput

    def __init__(self, inputs: TextInput, settings: "Settings") -> None:
        super().__init__(inputs, settings)
        self.info = {"input": f"texts, {inputs}"}
        if settings.samples:
            if not settings.samples.exists():
                raise UserError(f"no such folder or file: --samples {settings.samples}")
            texts = [text for text in read_texts(settings.samples, "text", "")[0] if text]
            self.samples = [(text, JSONResponse({"text": text})) for text in spread(texts)]

    @override
    async def parse(self, content_type: str, body: bytes) -> Parsed:
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "send a text as application/json")
        if len(body) <= 16 * 1024:  # waking a thread takes longer
            return self._parse(body)
        return await asyncio.to_thread(self._parse, body)

    def _parse(self, body: bytes) -> Parsed:
        try:
            content = json.loads(body)
            (name, given), *others = content.items()
        except (ValueError, AttributeError, RecursionError) as error:
            raise HTTPException(400, FORM) from error
        texts = given if name == "texts" else [given]
        if others or name not in ("text", "texts") or not isinstance(texts, list):
            raise HTTPException(400, FORM)
        if not all(isinstance(text, str) for text in texts):
            raise HTTPException(400, FORM)
        if not 1 <= len(texts) <= self.settings.max_concurrency:
            raise HTTPException(400, f"`texts` must have 1 to {self.settings.max_concurrency:,} texts")
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            raise HTTPException(400, f"a text is not valid Unicode: {error.reason}") from error
        texts = [clean_text(text) for text in texts]
        notes = [{"cut": True} if self.inputs.is_cut(text) else {} for text in texts]
        return Parsed([self.inputs.read(text) for text in texts], texts, notes, name == "texts")

    @override
    def occlude(self, parsed: Parsed) -> list[NDArray[Any]]:
        words = _words(parsed)
        return [self.inputs.read("".join(words[:number] + words[number + 1 :])) for number in range(len(words))]

    @override
    async def show(self, parsed: Parsed, drop: NDArray[np.float64]) -> dict[str, Any]:
        rows = zip(_words(parsed), drop.round(4).tolist(), strict=True)
        return {"words": [{"text": word, "drop": value} for word, value in rows]}


def _words(parsed: Parsed) -> list[str]:
    """Return the words of the first text, each with the blanks after it; of a long text, spans of several words."""
    return split_words(parsed.originals[0], MAX_COPIES) or [""]
