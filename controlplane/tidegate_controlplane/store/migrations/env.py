"""Alembic's entry: runs on the connection that `store.migrate` hands over."""

from alembic import context

from tidegate_controlplane.store.tables import Project

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Project.metadata,
    render_as_batch=True,
)
context.run_migrations()
