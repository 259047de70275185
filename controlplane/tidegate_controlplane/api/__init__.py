"""The control routes under `/api/v1`: they translate, the services decide."""
