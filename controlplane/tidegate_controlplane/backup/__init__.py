"""One archive of everything that a platform must not lose, and the way back from it."""
