"""compose.yaml: the bundle as one Docker Compose service. Rendered and checked, not run.

The models below are the part of the Compose Specification that is used here (compose-spec: 05-services.md,
07-volumes.md, deploy.md for reserved devices), with everything else forbidden, so that a misspelt key cannot pass.
"""

from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.bundle.launch import BUNDLE_DIR, DRAFT_DIR, STATE_DIR, Container, resource_name

SOURCE = "Compose Specification"

START_PERIOD = "30m"
"""Loading hundreds of gigabytes of weights and capturing CUDA graphs may take that long."""

_Strict = ConfigDict(extra="forbid")
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Device(BaseModel):
    """A reservation of GPUs."""

    model_config = _Strict
    driver: Literal["nvidia"]
    count: int = Field(ge=1)
    capabilities: list[Literal["gpu"]] = Field(min_length=1)


class Devices(BaseModel):
    """Reserved devices."""

    model_config = _Strict
    devices: list[Device]


class Resources(BaseModel):
    """Of a deployment."""

    model_config = _Strict
    reservations: Devices


class Deploy(BaseModel):
    """How a service is placed."""

    model_config = _Strict
    resources: Resources


class Mount(BaseModel):
    """A volume in its long form."""

    model_config = _Strict
    type: Literal["bind", "volume"]
    source: str = Field(min_length=1)
    target: str = Field(pattern=r"^/")
    read_only: bool = False


class Health(BaseModel):
    """How Compose learns that it serves."""

    model_config = _Strict
    test: list[str] = Field(min_length=2)
    interval: str = Field(pattern=r"^\d+[smh]$")
    timeout: str = Field(pattern=r"^\d+[smh]$")
    start_period: str = Field(pattern=r"^\d+[smh]$")
    retries: int = Field(ge=1)


class Service(BaseModel):
    """One container."""

    model_config = _Strict
    image: str = Field(pattern=r"^[^\s]+$")
    entrypoint: list[str] | None = None
    command: list[str] | None = None
    environment: dict[str, str]
    volumes: list[Mount]
    ports: list[str]
    ipc: Literal["host"]
    ulimits: dict[str, int]
    restart: Literal["unless-stopped"]
    init: bool
    deploy: Deploy | None = None
    healthcheck: Health

    @model_validator(mode="after")
    def _runs_something(self) -> "Service":
        if not (self.entrypoint or self.command):
            raise ValueError("neither entrypoint nor command")
        return self


class ComposeFile(BaseModel):
    """The whole file."""

    model_config = _Strict
    name: Name
    services: dict[Name, Service] = Field(min_length=1)
    volumes: dict[Name, None]

    @model_validator(mode="after")
    def _volumes_are_declared(self) -> "ComposeFile":
        used = {m.source for s in self.services.values() for m in s.volumes if m.type == "volume"}
        if used != set(self.volumes):
            raise ValueError(f"volumes {sorted(used)} are used, {sorted(self.volumes)} declared")
        return self


def compose_file(name: str, container: Container) -> str:
    """The file's text, checked; MODEL, and DRAFT_MODEL where there is one, are asked for when it is started."""
    volumes = [
        Mount(type="bind", source=".", target=BUNDLE_DIR, read_only=True),
        Mount(type="bind", source="${MODEL:?set it to the model}", target=container.model, read_only=True),
        Mount(type="volume", source="state", target=STATE_DIR),
    ]
    if container.has_draft:
        source = "${DRAFT_MODEL:?set it to the folder of the draft model}"
        volumes.append(Mount(type="bind", source=source, target=DRAFT_DIR, read_only=True))
    command, gpus = list(container.command), container.num_gpus
    probe = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{container.port}/health', timeout=5)"
    service = Service(
        image=container.image,
        entrypoint=None if container.keeps_entrypoint else command,
        command=command if container.keeps_entrypoint else None,
        environment=dict(container.env),
        volumes=volumes,
        ports=[f"${{SERVE_PORT:-{container.port}}}:{container.port}"],
        ipc="host",  # NCCL and the engine's processes share memory, far beyond the 64 MB of a container's own
        ulimits={"memlock": -1, "stack": 67108864},
        restart="unless-stopped",
        init=True,
        deploy=Deploy(
            resources=Resources(
                reservations=Devices(devices=[Device(driver="nvidia", count=gpus, capabilities=["gpu"])])
            )
        )
        if gpus
        else None,
        healthcheck=Health(
            test=["CMD", "python3", "-c", probe], interval="10s", timeout="10s", start_period=START_PERIOD, retries=3
        ),
    )
    whole = ComposeFile(name=resource_name(name), services={"engine": service}, volumes={"state": None})
    return yaml.safe_dump(whole.model_dump(exclude_none=True) | {"volumes": {"state": None}}, sort_keys=False)


def check(text: str) -> None:
    """Check the text of a compose.yaml.

    Raises:
        ValueError: If it breaks the models above (pydantic.ValidationError), or is no YAML.
    """
    try:
        ComposeFile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
