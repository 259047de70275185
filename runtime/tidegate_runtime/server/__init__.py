"""The replica server: one process, one model, OpenAI's HTTP shapes.

`__main__` ties the process to its parent before anything heavy is imported, `process` runs it from
start to drain, `app` translates HTTP, `generator` and `embeddings` do the work.
"""
