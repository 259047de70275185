"""From tokens to the text that may be shown: whole characters, and nothing of a stop string."""
