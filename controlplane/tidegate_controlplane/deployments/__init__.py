"""Declarations and what became of them: plan, apply, read, scale, delete."""
