"""What compressed contexts lose, and what spilled prefixes save."""
