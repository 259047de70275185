"""Who is calling: API keys, their roles and their quotas."""
