"""Prompts made shorter before they are run: what matters least for the answer is left out."""
