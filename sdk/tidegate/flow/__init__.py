"""How the SDK talks, without waiting: generators that yield steps and receive answers.

A flow yields `Request`, `Sleep`, `Now` or `ReadChunk` and is sent what came of it; `Emit` hands an
item to whoever iterates. Retries, polling, pagination and stream decoding are written here once;
the two clients differ only in the pump that performs the steps.
"""
