"""The part of the Kubernetes API that is used here, everything else forbidden, so that a misspelt key cannot pass.

Sources: the API's reference of core/v1 ConfigMap, Service and PodSpec, and of apps/v1 Deployment; names by RFC 1123.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

_Strict = ConfigDict(extra="forbid")
Dns = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Key = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]


class Metadata(BaseModel):
    """Of every object."""

    model_config = _Strict
    name: Dns
    labels: dict[str, str] = Field(default_factory=dict)


class ConfigMap(BaseModel):
    """core/v1."""

    model_config = _Strict
    apiVersion: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: Metadata
    data: dict[Key, str]


class EnvVar(BaseModel):
    """core/v1; the name is a C identifier."""

    model_config = _Strict
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    value: str


class VolumeMount(BaseModel):
    """core/v1."""

    model_config = _Strict
    name: Dns
    mountPath: str = Field(pattern=r"^/")
    readOnly: bool = False


class Port(BaseModel):
    """Of a container."""

    model_config = _Strict
    name: Dns
    containerPort: int = Field(ge=1, le=65535)


class HttpGet(BaseModel):
    """What a probe asks."""

    model_config = _Strict
    path: str = Field(pattern=r"^/")
    port: Dns


class Probe(BaseModel):
    """core/v1."""

    model_config = _Strict
    httpGet: HttpGet
    periodSeconds: int = Field(ge=1)
    failureThreshold: int = Field(ge=1)


class Limits(BaseModel):
    """Resources of a container."""

    model_config = _Strict
    limits: dict[str, str]


class PodContainer(BaseModel):
    """core/v1."""

    model_config = _Strict
    name: Dns
    image: str = Field(pattern=r"^[^\s]+$")
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[EnvVar]
    ports: list[Port]
    resources: Limits | None = None
    volumeMounts: list[VolumeMount]
    startupProbe: Probe
    readinessProbe: Probe


class Volume(BaseModel):
    """core/v1: exactly one source."""

    model_config = _Strict
    name: Dns
    configMap: dict[str, Any] | None = None
    persistentVolumeClaim: dict[str, Any] | None = None
    emptyDir: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Volume":
        if sum(each is not None for each in (self.configMap, self.persistentVolumeClaim, self.emptyDir)) != 1:
            raise ValueError(f"volume {self.name}: needs exactly one source")
        return self


class PodSpec(BaseModel):
    """core/v1."""

    model_config = _Strict
    containers: list[PodContainer] = Field(min_length=1)
    volumes: list[Volume]

    @model_validator(mode="after")
    def _mounts_are_volumes(self) -> "PodSpec":
        known = {volume.name for volume in self.volumes}
        lost = {mount.name for each in self.containers for mount in each.volumeMounts} - known
        if lost:
            raise ValueError(f"mounts of no volume: {sorted(lost)}")
        return self


class Template(BaseModel):
    """Of a pod."""

    model_config = _Strict
    metadata: dict[Literal["labels"], dict[str, str]]
    spec: PodSpec


class DeploymentSpec(BaseModel):
    """apps/v1."""

    model_config = _Strict
    replicas: int = Field(ge=0)
    strategy: dict[Literal["type"], Literal["Recreate", "RollingUpdate"]]
    selector: dict[Literal["matchLabels"], dict[str, str]]
    template: Template

    @model_validator(mode="after")
    def _selects_its_pods(self) -> "DeploymentSpec":
        if not self.selector["matchLabels"].items() <= self.template.metadata["labels"].items():
            raise ValueError("the selector does not match the template's labels")
        return self


class Deployment(BaseModel):
    """apps/v1."""

    model_config = _Strict
    apiVersion: Literal["apps/v1"]
    kind: Literal["Deployment"]
    metadata: Metadata
    spec: DeploymentSpec


class ServicePort(BaseModel):
    """core/v1."""

    model_config = _Strict
    name: Dns
    port: int = Field(ge=1, le=65535)
    targetPort: Dns


class ServiceSpec(BaseModel):
    """core/v1."""

    model_config = _Strict
    selector: dict[str, str]
    ports: list[ServicePort] = Field(min_length=1)


class Service(BaseModel):
    """core/v1."""

    model_config = _Strict
    apiVersion: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec


Manifest = Annotated[ConfigMap | Deployment | Service, Field(discriminator="kind")]


class _Literal(yaml.SafeDumper):
    """Writes texts of several lines as they are."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Literal.add_representer(str, _text)


def yaml_documents(objects: Sequence[BaseModel]) -> str:
    """Objects as one YAML file, files within them readable."""
    return yaml.dump_all(
        [each.model_dump(exclude_defaults=True) for each in objects], Dumper=_Literal, sort_keys=False, width=1000
    )
