"""Replicas on the nodes of a Ray cluster; only what runs there or connects to it imports Ray."""
