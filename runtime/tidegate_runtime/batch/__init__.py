"""A batch without a control plane: lines from S3, answers to S3, and no line twice."""
