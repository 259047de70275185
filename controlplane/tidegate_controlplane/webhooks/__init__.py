"""Webhooks: who is told of what happens, and the delivery of each event at least once."""
