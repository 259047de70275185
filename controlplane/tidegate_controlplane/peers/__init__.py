"""Several control planes on one database: one reconciles, all of them serve and work.

They tell each other everything by rows, which each looks at a few times a second.
"""
