"""Texts of a wanted shape: a grammar is checked, compiled aside, and followed token by token."""
