"""Batches: what they took, retries, tables

Revision 0007, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

DONE = "finished_at IS NOT NULL AND batch_id IS NOT NULL"
OPEN = "finished_at IS NULL"


def upgrade() -> None:
    with op.batch_alter_table("batch") as batch:
        batch.alter_column("input_file_id", existing_type=sa.String(), nullable=True)
        batch.add_column(sa.Column("output_expires_after_s", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("retry_of", sa.String(), nullable=True))
        for name in ("source", "target", "parts", "tally"):
            batch.add_column(sa.Column(name, sa.JSON(none_as_null=True), nullable=True))
    op.create_index("ix_batch_retry_of", "batch", ["retry_of"])
    op.create_index(
        "ix_file_expiry",
        "file",
        ["expires_at"],
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.add_column(
        "invocation", sa.Column("cached_tokens", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column(
        "invocation", sa.Column("replica_s", sa.Float(), nullable=False, server_default="0")
    )
    op.drop_index("ix_invocation_batch_status", "invocation")
    op.create_index(
        "ix_invocation_batch_open",
        "invocation",
        ["batch_id", "status"],
        sqlite_where=sa.text(OPEN),
        postgresql_where=sa.text(OPEN),
    )
    op.create_index(
        "ix_invocation_batch_done",
        "invocation",
        [
            "batch_id",
            "status",
            "finished_at",
            "prompt_tokens",
            "completion_tokens",
            "cached_tokens",
            "replica_s",
        ],
        sqlite_where=sa.text(DONE),
        postgresql_where=sa.text(DONE),
    )


def downgrade() -> None:
    op.drop_index("ix_invocation_batch_done", "invocation")
    op.drop_index("ix_invocation_batch_open", "invocation")
    op.create_index("ix_invocation_batch_status", "invocation", ["batch_id", "status"])
    op.drop_index("ix_file_expiry", "file")
    op.drop_index("ix_batch_retry_of", "batch")
    op.drop_column("invocation", "replica_s")
    op.drop_column("invocation", "cached_tokens")
    # A batch over tables has no file, and the former shape has no place for that.
    op.execute(
        "DELETE FROM invocation WHERE batch_id IN "
        "(SELECT id FROM batch WHERE input_file_id IS NULL)"
    )
    op.execute("DELETE FROM batch WHERE input_file_id IS NULL")
    with op.batch_alter_table("batch") as batch:
        for name in ("tally", "parts", "target", "source", "retry_of", "output_expires_after_s"):
            batch.drop_column(name)
        batch.alter_column("input_file_id", existing_type=sa.String(), nullable=False)
