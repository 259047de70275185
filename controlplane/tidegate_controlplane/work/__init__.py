"""Durable work: files, batches, invocations, and the workers that run them."""
