"""The process that compiles grammars which nobody has tried yet.

Started as `python -m tidegate_runtime.grammar.worker PARENT_PID CPU_S`, it reads a vocabulary, then
grammars, each a line of JSON, and answers each with a line. One that takes more than CPU_S of the
processor ends it (SIGPROF, which nothing in it can catch or put off); nobody else should try that.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

from tidegate_runtime.grammar.definition import LIMITS, definition, reason
from tidegate_runtime.grammar.productive import endless_rules
from tidegate_runtime.grammar.vocabulary import Vocabulary
from tidegate_runtime.server.parent import tie_to

_MEMORY_BYTES = 1 << 30
_NICE = 10
_NAMED = 3


def main(parent_pid: int, cpu_s: float) -> None:
    """Answer until the input ends."""
    tie_to(parent_pid)
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tokenizer = Vocabulary.receive(sys.stdin.buffer).open()
    _answer({"ready": True})
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        tried = _tried(tokenizer, **json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        _answer(tried)


def _tried(tokenizer: Any, kind: Any, text: str, lenient: bool) -> dict[str, Any]:
    """The definition of a grammar that compiles and has a first token; or what is wrong."""
    import llguidance

    try:
        made = definition(kind, text, lenient=lenient)
    except (ValueError, RecursionError) as error:
        return {"error": reason(str(error))}
    matcher = llguidance.LLMatcher(tokenizer, made, log_level=0, limits=LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        return {"error": reason(matcher.get_error())}
    if kind == "ebnf" and (endless := endless_rules(made)):
        return {"error": _never_ends(endless)}
    return {"definition": made}


def _never_ends(rules: list[str]) -> str:
    named = ", ".join(repr(rule) for rule in rules[:_NAMED])
    more = f" and {len(rules) - _NAMED} more" if len(rules) > _NAMED else ""
    return (
        f"no text ever ends it, since each alternative of {named}{more} needs one of them again; "
        "add an alternative without it, or make it optional ('root' is 'start' here)"
    )


def _answer(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
