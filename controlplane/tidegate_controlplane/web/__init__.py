"""The HTTP shell: request ids, the guard, bodies, errors, streams and the OpenAPI page."""
