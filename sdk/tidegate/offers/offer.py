"""An offer: one machine in one place at one price."""

from __future__ import annotations

from datetime import date
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, computed_field

BF16_CAPABILITY = (8, 0)
FP8_CAPABILITY = (8, 9)
"""From which compute capability on a GPU computes in a format (NVIDIA, CUDA C++ Programming Guide,
"Compute Capabilities")."""


class Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Covers(StrEnum):
    """What a price is of."""

    EC2 = "ec2"
    """The machine alone, with Linux."""
    SAGEMAKER = "sagemaker"
    """The machine as SageMaker hosts models on it: types begin with `ml.`."""


class MigSlice(Shape):
    """A part that a GPU can be divided into (Multi-Instance GPU), each with memory of its own."""

    profile: str = Field(description="such as `1g.10gb`")
    memory_share: float = Field(description="of the GPU's memory, and of its bandwidth")
    count: int = Field(description="of such slices on one GPU")


class Gpu(Shape):
    name: str
    memory_bytes: int
    bandwidth_bytes_per_s: float | None = Field(
        default=None, description="between the GPU and its memory; null where nobody says it"
    )
    compute_capability: str = Field(description="such as `8.9`")
    slices: tuple[MigSlice, ...] = ()

    @computed_field(description="whether it computes in bf16")  # type: ignore[prop-decorator]
    @property
    def bf16(self) -> bool:
        return self._capability() >= BF16_CAPABILITY

    @computed_field(description="whether it computes in fp8")  # type: ignore[prop-decorator]
    @property
    def fp8(self) -> bool:
        return self._capability() >= FP8_CAPABILITY

    def is_a(self, wanted: str) -> bool:
        """Whether this is the type that is asked for."""
        return is_gpu(self.name, wanted)

    def _capability(self) -> tuple[int, int]:
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


def is_gpu(name: str, wanted: str) -> bool:
    """Whether a GPU of this name is of a type: `A100` is any of `A100-40GB`, `NVIDIA A100-80GB`."""
    name, wanted = (_plain(each) for each in (name, wanted))
    return name == wanted or name.startswith(f"{wanted}-")


def _plain(name: str) -> str:
    words = name.upper().replace("_", "-").replace(" ", "-")
    return words.removeprefix("NVIDIA-").removeprefix("TESLA-")


class Hardware(Shape):
    """What a machine holds."""

    vcpus: int
    memory_bytes: int = Field(description="of the machine, beside that of its GPUs")
    gpu: Gpu | None = None
    gpus: int = 0
    hardware_source: str = Field(description="who says so, with the date")


class Offer(Hardware):
    """A machine in a region, and its price. US dollars, without tax."""

    provider: str = "aws"
    covers: Covers
    region: str
    instance_type: str
    usd_per_hour: float
    spot_usd_per_hour: float | None = Field(
        default=None, description="the lowest of the region's zones; null where it is not known"
    )
    source: str = Field(description="who says what it costs")
    as_of: date = Field(description="of the price, or of reading it where it bears no date")

    @computed_field(description="names it in lists")  # type: ignore[prop-decorator]
    @property
    def id(self) -> str:
        return f"{self.provider}:{self.covers.value}:{self.region}:{self.instance_type}"
