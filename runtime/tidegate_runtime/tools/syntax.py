"""How each family of models writes the calls of functions, and which family a template is of.

Sources: the chat templates of Hermes 2 Pro and Qwen 2.5 and 3, of Llama 3.1 and 3.2, and of Mistral
7B v0.3; SmolLM2's instructions for function calling, whose lists within the tags are read as well.
"""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass

_LETTERS = string.ascii_letters + string.digits
_TOOLS = re.compile(r"\btools\b")


@dataclass(frozen=True)
class CallSyntax:
    """The letters around a call, which is a JSON object with a name and arguments.

    `opening` stands before one call or a list of them, `closing` after it. With `bare` an answer
    that begins with an object needs no opening. `separator` stands between calls that are in no
    list. `arguments` is the key that the family writes; each one is read. `written` is what it
    writes before the first call, between two, and after the last.
    """

    opening: str
    closing: str = ""
    bare: bool = False
    separator: str = ""
    arguments: str = "arguments"
    written: tuple[str, str, str] = ("", "", "")
    id_prefix: str = "call_"
    id_letters: int = 24

    def new_id(self) -> str:
        """A fresh id of a call, as the family's template takes it back."""
        return self.id_prefix + "".join(secrets.choice(_LETTERS) for _ in range(self.id_letters))


HERMES = CallSyntax(
    "<tool_call>",
    "</tool_call>",
    written=("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"),
)
LLAMA3 = CallSyntax(
    "<|python_tag|>", bare=True, separator=";", arguments="parameters", written=("", "; ", "")
)
MISTRAL = CallSyntax(
    "[TOOL_CALLS]", written=("[TOOL_CALLS] [", ", ", "]"), id_prefix="", id_letters=9
)
SYNTAXES = {"hermes": HERMES, "llama3": LLAMA3, "mistral": MISTRAL}
"""By the name in a declaration."""


def knows_tools(template: str) -> bool:
    """Whether a chat template shows the model the tools that it is given."""
    return _TOOLS.search(template) is not None


def syntax_of(template: str) -> CallSyntax | None:
    """The family of a chat template, None where it is one that is not known here.

    A template that knows no tools gets them in Hermes' form (`tools.prompt`).
    """
    if not knows_tools(template):
        return HERMES
    if "<tool_call>" in template:
        # The same tag around XML instead of JSON: Qwen 3 Coder and GLM 4.5.
        return None if "<function=" in template or "<arg_key>" in template else HERMES
    if "[TOOL_CALLS]" in template:
        # Since Mistral's tokenizer v11 the name stands before [ARGS], outside of the JSON.
        return None if "[ARGS]" in template else MISTRAL
    if "<|python_tag|>" in template:
        return LLAMA3
    return LLAMA3 if "<|start_header_id|>" in template and "parameters" in template else None
