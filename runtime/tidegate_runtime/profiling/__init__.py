"""Where the engine's time goes: recorded for a while, told as a trace and as a summary."""
