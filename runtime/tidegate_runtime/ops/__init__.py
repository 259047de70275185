"""Tensor operations that replace parts of a model."""
