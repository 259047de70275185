"""Tables in files: rows in, the same rows with answers beside them out, a chunk at a time.

`base` says the contract; each format has a file of its own; `open` chooses. Only Parquet needs
pyarrow.
"""
