"""The text that every build is measured on: prose that comes with Python, so no file is needed."""

from __future__ import annotations

import hashlib
from pydoc_data.topics import topics

_TOPICS = ("naming", "exceptions", "objects", "typesmodules", "execmodel", "assignment", "class")
_SHORTEST = 200


def builtin_prose() -> str:
    """Paragraphs on the Python language, in English, without its code examples."""
    paragraphs = [
        " ".join(paragraph.split())
        for name in _TOPICS
        for paragraph in topics.get(name, "").split("\n\n")
        if len(paragraph) >= _SHORTEST and not paragraph.startswith((" ", "*", "|", "+"))
    ]
    return "\n\n".join(paragraphs)


def builtin_name(text: str) -> str:
    """What a report calls it: it differs a little between versions of Python."""
    return f"built-in prose {hashlib.sha256(text.encode()).hexdigest()[:8]}"
