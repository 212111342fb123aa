"""What a person chose for an expert: whether it is called, and how sure the meta LLM must be."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    enabled = sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true())
    op.add_column("experts", enabled)
    op.add_column("experts", sa.Column("threshold", sa.Float))
