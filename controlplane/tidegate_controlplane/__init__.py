"""The control plane: keeps declarations true, routes requests, and keeps the books."""
