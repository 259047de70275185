"""Payloads and results: bytes under a key, in a directory or in S3."""
