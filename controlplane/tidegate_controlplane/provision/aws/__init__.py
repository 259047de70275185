"""Replicas as copies of SageMaker inference components, one Pulumi stack per deployment."""
