"""The engine: a step loop over one ragged batch.

`Scheduler` decides which sequence computes how many tokens, `BlockManager` who owns which cache
blocks, `ModelRunner` runs them in one forward, `Stepper` turns what comes out into events, and
`Engine` is the thread around it. The rooms beside it: `sampling` chooses the tokens, `text` makes
them readable, `speculation` guesses ahead. Nothing here knows of HTTP.
"""
