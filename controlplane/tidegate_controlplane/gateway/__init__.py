"""The data plane: authenticate, limit, hold, route, retry, stream, account."""
