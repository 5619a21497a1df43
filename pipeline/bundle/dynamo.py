"""dynamo.yaml: a split deployment as NVIDIA Dynamo's DynamoGraphDeployment. Rendered and checked, not run.

Dynamo starts the same two YAML files under its own worker (`dynamo.trtllm`) behind its own frontend instead of
`trtllm-serve disaggregated`: what was measured is the engines' configuration, not this deployment. Sources:
ai-dynamo/dynamo, the CRD nvidia.com/v1alpha1 in deploy/operator/config/crd/bases and
examples/backends/trtllm/deploy/disagg.yaml and disagg-multinode.yaml (2026).
"""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from pipeline.bundle.kubernetes_api import ConfigMap, Dns, EnvVar, Metadata, VolumeMount, yaml_documents
from pipeline.bundle.launch import MODEL_DIR, STATE_DIR, resource_name
from pipeline.bundle.measured import Measured
from pipeline.disaggregation import Deployment
from pipeline.engine.trtllm.adapter import CONFIG_FILE, TrtllmEngine
from pipeline.engine.trtllm.disaggregated import as_server, without_prompts
from pipeline.engine.trtllm.multinode import num_nodes
from pipeline.engine_config import EngineConfig

IMAGE = "nvcr.io/nvidia/ai-dynamo/tensorrtllm-runtime:set-me"
"""Dynamo's releases hold their own version of TensorRT-LLM: the operator picks the one that was measured."""

CONFIG_DIR = "/config"
HTTP_PORT = 8000
MODES = {"context": "prefill", "generation": "decode"}
"""Our word -> Dynamo's."""

_Strict = ConfigDict(extra="forbid")


class PvcMount(BaseModel):
    """Where a claim of spec.pvcs is seen."""

    model_config = _Strict
    name: Dns
    mountPoint: str = Field(pattern=r"^/")


class MainContainer(BaseModel):
    """The container of a service."""

    model_config = _Strict
    image: str = Field(pattern=r"^[^\s]+$")
    command: list[str] = Field(min_length=1)
    args: list[str]
    env: list[EnvVar] = Field(default_factory=list)
    volumeMounts: list[VolumeMount] = Field(default_factory=list)


class ExtraPodSpec(BaseModel):
    """A PodSpec with the container apart."""

    model_config = _Strict
    volumes: list[dict[str, Any]] = Field(default_factory=list)
    mainContainer: MainContainer


class Service(BaseModel):
    """A component of the graph; a worker of the part of a request that it does."""

    model_config = _Strict
    componentType: Literal["frontend", "worker"]
    subComponentType: Literal["prefill", "decode"] | None = None
    replicas: int = Field(ge=1)
    multinode: dict[Literal["nodeCount"], Annotated[int, Field(ge=2)]] | None = None
    resources: dict[Literal["limits"], dict[Literal["gpu"], Annotated[str, Field(pattern=r"^[1-9]\d*$")]]] | None = None
    volumeMounts: list[PvcMount] = Field(default_factory=list)
    extraPodSpec: ExtraPodSpec


class Spec(BaseModel):
    """Of the graph."""

    model_config = _Strict
    backendFramework: Literal["trtllm"]
    pvcs: list[dict[Literal["name"], Dns]]
    services: dict[str, Service] = Field(min_length=2, max_length=25)

    @model_validator(mode="after")
    def _has_one_frontend(self) -> "Spec":
        if sum(service.componentType == "frontend" for service in self.services.values()) != 1:
            raise ValueError("needs exactly one frontend")
        return self


class Graph(BaseModel):
    """nvidia.com/v1alpha1."""

    model_config = _Strict
    apiVersion: Literal["nvidia.com/v1alpha1"]
    kind: Literal["DynamoGraphDeployment"]
    metadata: Metadata
    spec: Spec


def dynamo(name: str, measured: Measured, deployment: Deployment) -> str:
    """The file's text, checked: the configs as a ConfigMap, then the graph. The model is on a claim named `model`."""
    own, files = resource_name(name), resource_name(name, "config")
    config_map = ConfigMap(
        apiVersion="v1",
        kind="ConfigMap",
        metadata=Metadata(name=files),
        data={_file(kind): measured.rendered.files[f"{kind}_{CONFIG_FILE}"] for kind in MODES},
    )
    frontend = Service(
        componentType="frontend",
        replicas=1,
        volumeMounts=[PvcMount(name="model", mountPoint=MODEL_DIR)],  # for its tokenizer
        extraPodSpec=ExtraPodSpec(
            mainContainer=MainContainer(
                image=IMAGE, command=["python3", "-m", "dynamo.frontend"], args=["--http-port", str(HTTP_PORT)]
            )
        ),
    )
    workers = {
        MODES["context"]: _worker("context", deployment.context, deployment.num_context_servers, files, measured),
        MODES["generation"]: _worker(
            "generation", deployment.generation, deployment.num_generation_servers, files, measured
        ),
    }
    spec = Spec(backendFramework="trtllm", pvcs=[{"name": "model"}], services={"Frontend": frontend, **workers})
    graph = Graph(
        apiVersion="nvidia.com/v1alpha1", kind="DynamoGraphDeployment", metadata=Metadata(name=own), spec=spec
    )
    return yaml_documents([config_map, graph])


def check(text: str) -> None:
    """Check the text of a dynamo.yaml.

    Raises:
        ValueError: If an object breaks the models above (pydantic.ValidationError), or it is no YAML.
    """
    kinds: TypeAdapter[list[ConfigMap | Graph]] = TypeAdapter(
        list[Annotated[ConfigMap | Graph, Field(discriminator="kind")]]
    )
    try:
        kinds.validate_python(list(yaml.safe_load_all(text)))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _file(kind: str) -> str:
    return f"{MODES[kind]}.yaml"


def _worker(kind: str, config: EngineConfig, count: int, files: str, measured: Measured) -> Service:
    study = measured.study if kind == "context" else without_prompts(config, measured.study)
    env = TrtllmEngine().render(as_server(config, study), study).env
    nodes = num_nodes(config.parallelism.num_gpus, study.hardware)
    args = ["--model-path", MODEL_DIR, "--served-model-name", study.model.name]
    args += ["--extra-engine-args", f"{CONFIG_DIR}/{_file(kind)}", "--disaggregation-mode", MODES[kind]]
    return Service(
        componentType="worker",
        subComponentType="prefill" if kind == "context" else "decode",
        replicas=count,
        multinode={"nodeCount": nodes} if nodes > 1 else None,
        resources={"limits": {"gpu": str(config.parallelism.num_gpus // nodes)}},
        volumeMounts=[PvcMount(name="model", mountPoint=MODEL_DIR)],
        extraPodSpec=ExtraPodSpec(
            volumes=[{"name": "config", "configMap": {"name": files}}, {"name": "state", "emptyDir": {}}],
            mainContainer=MainContainer(
                image=IMAGE,
                command=["python3", "-m", "dynamo.trtllm"],
                args=args,
                env=[
                    EnvVar(name=key, value=value.replace("{engine_dir}", STATE_DIR))
                    for key, value in sorted(env.items())
                ],
                volumeMounts=[
                    VolumeMount(name="config", mountPath=CONFIG_DIR, readOnly=True),
                    VolumeMount(name="state", mountPath=STATE_DIR),
                ],
            ),
        ),
    )
