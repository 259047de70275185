"""Weights that do not fit the device's memory: some layers are brought anew at each step."""
