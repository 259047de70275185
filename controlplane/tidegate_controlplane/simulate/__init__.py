"""Replay a trace of requests through autoscalers, on one model of a cluster."""
