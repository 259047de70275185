"""Distillation: heads that guess what a model will say, learnt from what it says.

`traces` lets the model continue a text, `examples` cuts that into rows to learn from, `learner` is
what learns, `train` the loop, `report` what came of it; `distill` puts them together.
"""
