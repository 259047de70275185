"""Making smaller models: what takes weights, layers and bits away, guided by a text."""
