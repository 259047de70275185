"""What a Pulumi program in Python declares: deployments, API keys, and which platform has them."""
