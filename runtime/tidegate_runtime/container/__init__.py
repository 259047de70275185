"""The runtime image's entry point: what a container is told by its environment."""
