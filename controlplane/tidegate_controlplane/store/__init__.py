"""Durable state: SQLModel tables, migrations, and the unit of work."""
