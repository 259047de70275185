"""The operators of a decoder on a GPU, in Triton.

They have run under Triton's interpreter, where the tests hold them to torch's results, and they
compile for Hopper; on a GPU they have not run yet, and their tile sizes are chosen on paper.

Import this only where Triton is installed: it comes with torch for CUDA, and with
`pip install 'tidegate[gpu]'`.
"""
