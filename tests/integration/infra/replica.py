"""A played replica that does not start while there is a file `refuse.md` beside its model's."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

PLAYED = Path(__file__).parent.with_name("peers") / "replica.py"

if __name__ == "__main__":
    config = json.loads(Path(sys.argv[2]).read_text())
    if Path(config["source"], "refuse.md").exists():
        sys.exit("the model is refused")
    runpy.run_path(str(PLAYED), run_name="__main__")
