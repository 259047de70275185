"""The version of this distribution; `pyproject.toml` says the same, and a test holds them equal."""

VERSION = "0.1.0"
