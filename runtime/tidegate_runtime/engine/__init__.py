"""The engine: a step loop over one ragged batch.

`Scheduler` decides which sequence computes how many tokens, `BlockManager` who owns which cache
blocks, `ModelRunner` runs them in one forward, `sampler` chooses the next tokens, and `Engine` is
the thread that puts them together. Nothing here knows of HTTP.
"""
