"""Install the peers, each into a virtual environment of its own: `make bench-setup`.

A peer that is there already is left alone. One that cannot be installed does not keep the others
from it; the exit status says so at the end.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.catalogue import PEERS, PLOTS, Peer, python_of

COMPLETE = ".complete"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", help="all of them when none is named")
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    given = parser.parse_args()
    wanted = {name: _peer(parser, name) for name in given.peers or PEERS}
    own_folder(given.folder)
    done = [_install(given.folder, name, peer) for name, peer in wanted.items()]
    return 0 if all([*done, _install(given.folder, "plots", PLOTS)]) else 1


def own_folder(folder: Path) -> None:
    """A folder that git does not see."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")


def trimmed(requirements: Iterable[str], without: Iterable[str]) -> list[str]:
    """Requirements without optional ones and those named; [image] would bring OpenCV back."""
    kept = (line for line in requirements if "extra ==" not in line)
    return [line.replace("[image]", "") for line in kept if _name(line) not in without]


def _peer(parser: argparse.ArgumentParser, name: str) -> Peer:
    if name not in PEERS:
        parser.error(f"no peer is called {name!r}; there are {', '.join(PEERS)}")
    return PEERS[name]


def _install(folder: Path, name: str, peer: Peer) -> bool:
    python = python_of(folder, name)
    home = python.parent.parent
    if (home / COMPLETE).exists():
        print(f"{name}: is there")
        return True
    print(f"{name}: installing into {home}", flush=True)
    try:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        for step in peer.steps:
            _pip(python, peer, step)
        if peer.trimmed is not None:
            _install_requirements(python, peer, peer.trimmed)
    except subprocess.CalledProcessError as error:
        print(f"{name}: could not be installed: {error}", flush=True)
        return False
    (home / COMPLETE).touch()
    return True


def _pip(python: Path, peer: Peer, arguments: Iterable[str]) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **peer.build_env})


def _install_requirements(python: Path, peer: Peer, package: str) -> None:
    asked = f"import importlib.metadata as m; print(*m.requires({package!r}), sep='\\n')"
    found = subprocess.run([str(python), "-c", asked], check=True, text=True, capture_output=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(trimmed(found.stdout.splitlines(), peer.without)))
        file.flush()
        _pip(python, peer, ["--requirement", file.name])


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found.group().lower().replace("_", "-") if found else requirement


if __name__ == "__main__":
    sys.exit(main())
