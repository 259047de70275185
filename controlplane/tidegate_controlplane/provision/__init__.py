"""Where replicas run: one contract, one provisioner per place."""
