"""What durable work costs in its store, and how that grows with the queue."""
