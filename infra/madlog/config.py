"""Settings: built once in the command line, passed down, read from nowhere else."""

import os
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

__all__ = ("Settings", "from_environment")


class Settings(BaseModel):
    """Every limit and default that a person may set; the environment names are MADLOG_NAME."""

    model_config = ConfigDict(frozen=True)

    log: str = ".madlog"
    schema_registry_url: str | None = Field(
        default=None,
        description="a schema registry: events are written in the Confluent wire format",
    )
    blobs: str | None = Field(
        default=None, description="where fixed content is kept: any fsspec URL"
    )
    lake: str | None = Field(
        default=None,
        description="where archived events are kept as Parquet: a folder, any fsspec URL",
    )
    lake_records_min: int = Field(
        default=2_000, ge=1, description="a partition with fewer waits before it is archived"
    )
    lake_age_s: float = Field(
        default=60.0, ge=0, description="how long it waits at most, in seconds"
    )
    lake_grace_s: float = Field(
        default=3_600.0, ge=0, description="how long replaced files of the lake are kept"
    )
    kafka_folder: str = Field(
        default=".madlog-kafka", description="projections and blobs beside a log on Kafka"
    )
    kafka_timeout_s: float = Field(
        default=15.0, gt=0, description="how long a cluster may take to answer"
    )
    record_bytes_max: int = Field(default=1 << 20, ge=1024, description="largest turn, bytes")
    queue_bytes_max: int = Field(default=32 << 20, ge=1 << 20, description="unacknowledged, bytes")
    session_timeout_s: float = Field(default=6.0, gt=0.5, le=9.0, description="member lease")
    worker_batch_records_max: int = Field(default=2_000, ge=1, le=10_000)
    worker_recovery_timeout_s: float = Field(default=600.0, gt=0)
    faust_standby_replicas: int = Field(
        default=1, ge=0, description="other Faust workers that keep a copy of a table"
    )
    status_window_s: float = Field(
        default=3_600.0, ge=60, le=86_400, description="how far back live figures go"
    )
    budget_usd: float | None = Field(
        default=None, ge=0, description="what an agent may spend in that time; above it is said"
    )
    budget_tokens: int | None = Field(
        default=None, ge=0, description="tokens that an agent may use in that time"
    )
    prices: str | None = Field(
        default=None, description="a CSV or JSON file of dollars a million tokens, by model"
    )
    max_error: float = Field(default=0.05, ge=0, le=1, description="promised error of cheap tiers")
    audit_rate: float = Field(
        default=0.02, ge=0, le=1, description="share judged by the tier above"
    )
    agents: str | None = Field(
        default=None, description="a JSON or TOML file: the live agents and what they may do"
    )
    acting_grace_s: float = Field(
        default=5.0, ge=0, description="how long after its time an act's worker is taken for dead"
    )
    imperator_at_once: int = Field(
        default=8, ge=1, description="calls of language models under way at once"
    )
    imperator_timeout_s: float = Field(
        default=120.0, gt=0, description="a language model that takes longer is asked again"
    )
    evidence_key: str | None = Field(
        default=None, description="the file of the signing key, better on another disk than the log"
    )
    evidence_interval_s: float = Field(
        default=60.0, ge=1, description="how often a worker signs what was appended since"
    )
    outcome_rules: str = Field(
        default="", description="rules for outcomes: a,b those only, -a all but a, empty all"
    )
    outcome_timeout_s: float = Field(
        default=300.0, gt=0, description="an answer that takes longer is a time-out"
    )
    outcome_conversations_max: int = Field(
        default=50_000, ge=1, description="newest conversations that outcomes are judged of"
    )


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this environment; raises ValueError naming the wrong one."""
    environment = os.environ if environment is None else environment
    found = {
        name: environment[f"MADLOG_{name.upper()}"]
        for name in Settings.model_fields
        if environment.get(f"MADLOG_{name.upper()}")
    }
    return Settings.model_validate(found)
