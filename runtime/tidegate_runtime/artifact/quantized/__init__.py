"""Checkpoints whose author quantized them: each format read into weights that a build packs."""
