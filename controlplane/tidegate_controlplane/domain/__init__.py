"""Decisions: pure functions of values. No clock, no random, no I/O except through arguments."""
