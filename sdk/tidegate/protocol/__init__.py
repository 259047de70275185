"""The words spoken on the wire: request and response shapes shared by every door.

Pure pydantic, no I/O. The SDK sends them, the gateway validates them, the replica answers them, so
a field means the same thing everywhere and is refused by the same sentence.
"""
