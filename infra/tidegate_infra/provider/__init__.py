"""A Pulumi provider: deployments and API keys declared in a stack, kept true by our REST API."""
