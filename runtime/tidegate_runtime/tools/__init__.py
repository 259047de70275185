"""Calls of functions in a model's text: how families write them, how they are read and asked for.

Nothing here knows of HTTP or of tokens: text goes in, events come out.
"""
