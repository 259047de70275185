"""LoRA adapters: read, checked against the model, and kept in memory while they are asked for."""
