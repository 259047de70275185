"""One parent per machine that has imported what a replica needs, and forks replicas."""
