"""The REST API as flows: one file per noun, each route's request and the shape of its answer."""
