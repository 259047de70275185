"""What a model's files say about it, wherever they are. Nothing is loaded, nothing is run."""
