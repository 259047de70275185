"""Autoscalers behind one protocol: this platform's own, and those that it is compared with."""
