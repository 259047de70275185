"""The platform on this machine: start it, find it again, stop it.

The control plane is another process, started with this Python; nothing of it is imported here.
"""
