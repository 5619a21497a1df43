"""kubernetes.yaml: the bundle's files as a ConfigMap, a Deployment of one replica and a Service. Checked, not run.

GPUs are asked for by the name that NVIDIA's device plugin gives them.
"""

from collections.abc import Mapping

import yaml
from pydantic import BaseModel, TypeAdapter

from pipeline.bundle.kubernetes_api import (
    ConfigMap,
    Deployment,
    DeploymentSpec,
    EnvVar,
    HttpGet,
    Limits,
    Manifest,
    Metadata,
    PodContainer,
    PodSpec,
    Port,
    Probe,
    Service,
    ServicePort,
    ServiceSpec,
    Template,
    Volume,
    VolumeMount,
    yaml_documents,
)
from pipeline.bundle.launch import BUNDLE_DIR, DRAFT_DIR, MODEL_DIR, STATE_DIR, Container, resource_name

MAX_CONFIG_MAP_BYTES = 1_000_000
"""Kubernetes takes 1 MiB (Concepts, ConfigMaps); some of it goes to keys and metadata."""

GPU_RESOURCE = "nvidia.com/gpu"
READY_LIMIT_S = 3600
"""How long a pod may load before it is given up."""

PROBE_PERIOD_S = 10


def fits(files: Mapping[str, str]) -> bool:
    """Whether the bundle's files fit a ConfigMap."""
    return sum(len(name) + len(text.encode()) for name, text in files.items()) <= MAX_CONFIG_MAP_BYTES


def kubernetes(name: str, container: Container, files: Mapping[str, str]) -> str:
    """The file's text, checked.

    Args:
        name: Of the bundle.
        container: What runs.
        files: What run.sh needs, by path in the bundle.
    """
    own, files_name, labels = (
        resource_name(name),
        resource_name(name, "files"),
        {"app.kubernetes.io/name": resource_name(name)},
    )
    keys = {path: path.replace("/", "__") for path in files}
    http = HttpGet(path="/health", port="http")
    mounts = [
        VolumeMount(name="bundle", mountPath=BUNDLE_DIR, readOnly=True),
        VolumeMount(name="model", mountPath=MODEL_DIR, readOnly=True),
        VolumeMount(name="state", mountPath=STATE_DIR),
        VolumeMount(name="shm", mountPath="/dev/shm"),  # noqa: S108  # NCCL's shared memory
    ]
    volumes = [
        Volume(name="bundle", configMap={"name": files_name,
                                         "items": [{"key": key, "path": path} for path, key in keys.items()]}),
        Volume(name="model", persistentVolumeClaim={"claimName": "model", "readOnly": True}),
        Volume(name="state", emptyDir={}),
        Volume(name="shm", emptyDir={"medium": "Memory"}),
    ]  # fmt: skip
    if container.has_draft:
        mounts.append(VolumeMount(name="draft-model", mountPath=DRAFT_DIR, readOnly=True))
        volumes.append(Volume(name="draft-model", persistentVolumeClaim={"claimName": "draft-model", "readOnly": True}))
    command = list(container.command)
    pod = PodContainer(
        name="engine",
        image=container.image,
        command=None if container.keeps_entrypoint else command,
        args=command if container.keeps_entrypoint else None,
        env=[EnvVar(name=key, value=value) for key, value in container.env.items()],
        ports=[Port(name="http", containerPort=container.port)],
        resources=Limits(limits={GPU_RESOURCE: str(container.num_gpus)}) if container.num_gpus else None,
        volumeMounts=mounts,
        startupProbe=Probe(
            httpGet=http, periodSeconds=PROBE_PERIOD_S, failureThreshold=READY_LIMIT_S // PROBE_PERIOD_S
        ),
        readinessProbe=Probe(httpGet=http, periodSeconds=PROBE_PERIOD_S, failureThreshold=3),
    )
    objects: list[BaseModel] = [
        ConfigMap(
            apiVersion="v1", kind="ConfigMap", metadata=Metadata(name=files_name, labels=labels),
            data={keys[path]: text for path, text in files.items()},
        ),
        Deployment(
            apiVersion="apps/v1", kind="Deployment", metadata=Metadata(name=own, labels=labels),
            spec=DeploymentSpec(
                replicas=1,
                strategy={"type": "Recreate"},  # the GPUs of the old pod are those that the new one waits for
                selector={"matchLabels": labels},
                template=Template(metadata={"labels": labels}, spec=PodSpec(containers=[pod], volumes=volumes)),
            ),
        ),
        Service(
            apiVersion="v1", kind="Service", metadata=Metadata(name=own, labels=labels),
            spec=ServiceSpec(selector=labels, ports=[ServicePort(name="http", port=container.port, targetPort="http")]),
        ),
    ]  # fmt: skip
    return yaml_documents(objects)


def check(text: str) -> None:
    """Check the text of a kubernetes.yaml.

    Raises:
        ValueError: If an object breaks the models above (pydantic.ValidationError), or it is no YAML.
    """
    try:
        TypeAdapter(list[Manifest]).validate_python(list(yaml.safe_load_all(text)))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
