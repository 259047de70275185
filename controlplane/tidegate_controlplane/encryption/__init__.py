"""Encryption at rest: keys, and the shape of what they sealed."""
