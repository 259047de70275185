"""Decoders: a model's weights on one device, behind one call a step."""
