"""The runtime: one process that loads one model and serves it over OpenAI's HTTP shapes.

`artifact` turns a source into files that are safe to load, `engine` decides and runs each step,
`ops` holds the tensor operations that transformers calls back into, `server` speaks HTTP.
"""
