"""The hardware catalogue: kept in rows, and asked for anew where prices are published."""
