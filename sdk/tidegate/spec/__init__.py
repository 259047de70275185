"""The declaration language: what to serve, and how. Pure pydantic, no I/O.

The same object comes from YAML, JSON and Python:

    >>> spec = DeploymentSpec(name="smol", model="hf://org/name", mode="serverless")
    >>> parse("name: smol\\nmodel: hf://org/name\\nmode: serverless") == spec
    True
"""

from tidegate.spec.deployment import (
    DeploymentSpec,
    GpuSpec,
    HardwareSpec,
    Mode,
    ModelSpec,
    Pooling,
    ProvisionerName,
    ScalingSpec,
    ScheduleSpec,
    SloSpec,
    Task,
)
from tidegate.spec.diff import Change, diff
from tidegate.spec.errors import SpecError, SpecIssue, explain
from tidegate.spec.rollout import (
    CanarySpec,
    CanaryStep,
    RollbackSpec,
    RolloutSpec,
    ShadowSpec,
    Strategy,
)
from tidegate.spec.runtime import (
    KvSpillSpec,
    OffloadSpec,
    Precision,
    RuntimeSpec,
    SpeculationSpec,
)
from tidegate.spec.schema import json_schema
from tidegate.spec.source import ModelSource, SourceKind, check_files, parse_source
from tidegate.spec.text import dump, load, parse

__all__ = [
    "CanarySpec",
    "CanaryStep",
    "Change",
    "DeploymentSpec",
    "GpuSpec",
    "HardwareSpec",
    "KvSpillSpec",
    "Mode",
    "ModelSource",
    "ModelSpec",
    "OffloadSpec",
    "Pooling",
    "Precision",
    "ProvisionerName",
    "RollbackSpec",
    "RolloutSpec",
    "RuntimeSpec",
    "ScalingSpec",
    "ScheduleSpec",
    "ShadowSpec",
    "SloSpec",
    "SourceKind",
    "SpecError",
    "SpecIssue",
    "SpeculationSpec",
    "Strategy",
    "Task",
    "check_files",
    "diff",
    "dump",
    "explain",
    "json_schema",
    "load",
    "parse",
    "parse_source",
]
