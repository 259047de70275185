"""Zero to first token, bursts, the gateway's own time, and the autoscaler beside others."""
