"""One model over several processes: each has a part of every layer (tensor parallel)."""
