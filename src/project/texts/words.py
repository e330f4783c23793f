"""Words of texts in any script."""

import re
from itertools import pairwise

CJK = r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
UNITS = re.compile(rf"{CJK}|\S+?(?=\s|{CJK}|$)")
"""A word: characters without blanks between them; in Chinese, Japanese and Korean, a single character."""


def split_words(text: str, limit: int | None = None) -> list[str]:
    """Return the words of a text, each with the blanks that follow it, so that joined they are the text.

    Args:
        text: The text.
        limit: Return at most this many parts: of a text with more words, spans of neighboring words.
    """
    starts = [word.start() for word in UNITS.finditer(text)]
    each = 1 if limit is None else max(1, -(-len(starts) // limit))
    edges = [0, *starts[each::each], len(text)]
    return [text[start:end] for start, end in pairwise(edges)] if text else []
