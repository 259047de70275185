"""The components for AWS, offered to programs in other languages."""
