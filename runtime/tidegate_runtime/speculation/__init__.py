"""Speculation: guess the next tokens, then let the model check all guesses in one step.

`base` says what a proposer is; `ngram` finds guesses in the text itself, `draft_model` asks a
smaller model. `depth` decides how many guesses pay, `verify` which of them stand, and `speculator`
puts them together for the engine.
"""
