"""From a conversation to the text that a model continues, by the model's own chat template.

A template is a program that came with the model, so it runs in a process of its own, within bounds.
"""
