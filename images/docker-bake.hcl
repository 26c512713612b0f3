# All images: `make images`, which builds the group `bases`, then all others from them. They find their base by its tag, not by `contexts`,
# so that Docker 20.10 (Debian 12's) builds them too; a builder other than docker's own needs REGISTRY and PUSH=1 for that.
# A variable is set by the environment: TAG=1.2 make images

variable "PYTHON_IMAGE" { default = "python:3.11-slim-bookworm" } # any Debian with python3 3.11, venv and pip
variable "REGISTRY" { default = "localhost" }                     # registry.example.com:5000/team; localhost: images stay here
variable "TAG" { default = "0.1.0" }                              # the version, which is the chart's tag too
variable "VERSION" { default = null }
variable "REVISION" { default = null }
variable "SOURCE" { default = null }                              # where the code is published
variable "BUILD_NETWORK" { default = "default" }                  # host: what RUN reaches is what this machine reaches
variable "PIP_CONF" { default = "" }                              # a pip.conf and a uv.toml that name a package index of one's own;
variable "UV_CONF" { default = "" }                               # passed as secrets, so that no image keeps them
variable "MLFLOW" { default = "" }                                # 1: control has MLflow's client (70 MB), for MLFLOW_TRACKING_URI

function "tag" {
  params = [name]
  result = ["${REGISTRY == "" ? "localhost" : REGISTRY}/tailfill/${name}:${TAG}"]
}

group "bases" { targets = ["base", "slim", "control-base"] }
group "default" { targets = ["control", "stage"] }

target "_all" {
  context      = "."
  network      = BUILD_NETWORK
  entitlements = BUILD_NETWORK == "host" ? ["network.host"] : []
  secret       = concat(PIP_CONF == "" ? [] : ["id=pip,src=${PIP_CONF}"], UV_CONF == "" ? [] : ["id=uv,src=${UV_CONF}"])
  labels = {
    "org.opencontainers.image.version"  = VERSION
    "org.opencontainers.image.revision" = REVISION
    "org.opencontainers.image.source"   = SOURCE
  }
}

target "base" {
  inherits   = ["_all"]
  dockerfile = "images/base/Dockerfile"
  tags       = tag("base")
  args = {
    PYTHON_IMAGE = PYTHON_IMAGE
    IMPORTS      = <<-PYTHON
      import timm, torchvision, sklearn.linear_model, jinja2, matplotlib.pyplot, imagehash, accelerate, peft
      import boto3, optuna, sqlalchemy.dialects.postgresql.psycopg2, prometheus_client, scipy.stats, pyarrow.parquet, pyarrow.compute
      from diffusers import StableDiffusionPipeline
      from transformers import CLIPTextModel, CLIPTokenizer
    PYTHON
  }
}

# What the stages and coordinators of searches stand on that compute without torch: a node without GPU fetches a tenth of the base.
target "slim" {
  inherits = ["base"]
  tags     = tag("slim")
  args = {
    LOCK    = "images/slim/requirements.lock"
    IMPORTS = <<-PYTHON
      import boto3, sklearn.linear_model, jinja2, matplotlib.pyplot, imagehash, PIL.Image
      import optuna, sqlalchemy.dialects.postgresql.psycopg2, prometheus_client, scipy.stats.qmc, pyarrow.parquet, pyarrow.compute
    PYTHON
  }
}

# What control stands on. pyarrow comes with clients for Flight and S3, kubernetes with a second client and libraries for asyncio, botocore with every
# service of Amazon's, tensorboard with its own server, which needs Pillow and gRPC, and MLflow's client with a server's program; and tests come with
# all of them.
target "control-base" {
  inherits   = ["base"]
  tags       = tag("control-base")
  args = {
    LOCK    = MLFLOW == "" ? "images/control/requirements.lock" : "images/control-mlflow/requirements.lock"
    PROGRAM = "jobs.control"
    UNUSED  = "pyarrow/*flight* pyarrow/libarrow_s3* pyarrow/_s3fs* pyarrow/include */tests */*/tests kubernetes/aio aiohttp multidict yarl frozenlist propcache aiosignal aiohappyeyeballs PIL pillow.libs grpc tensorboard_data_server tensorboard/webfiles.zip botocore/data/[a-r]*/ botocore/data/[t-z]*/ ../../../bin/uvicorn"
    IMPORTS = <<-PYTHON
      import boto3, optuna, sqlalchemy.dialects.postgresql.psycopg2, prometheus_client, kubernetes.client, kubernetes.stream, rich.live
      import pyarrow.parquet, pyarrow.compute, psutil, pydantic, yaml, tensorboard.plugins.hparams.summary_v2
      boto3.client("s3", region_name="us-east-1")
      ${MLFLOW == "" ? "" : "import mlflow.tracking"}
    PYTHON
  }
}

target "control" {
  inherits   = ["_all"]
  dockerfile = "images/control/Dockerfile"
  args       = { BASE = tag("control-base")[0] }
  tags       = tag("control")
}

target "stage" {
  name       = stage
  matrix     = { stage = ["prepare", "weights", "finetune", "generate", "judge", "score", "tune", "final", "report"] }
  inherits   = ["_all"]
  dockerfile = "images/${stage}/Dockerfile"
  args       = { BASE = tag(contains(["prepare", "report"], stage) ? "slim" : "base")[0] }
  tags       = tag(stage)
}
