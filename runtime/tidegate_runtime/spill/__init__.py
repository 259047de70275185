"""Prefix blocks that leave the key/value cache: to host memory, to disk, and back."""
