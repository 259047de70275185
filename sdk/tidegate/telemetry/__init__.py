"""How the platform's processes tell what they do: log lines and spans, the same in all of them."""
