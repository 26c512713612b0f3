# A cluster on this machine to try the chart on: kind, with a registry beside it and made-up GPUs.
export KIND_CLUSTER ?= tailfill
export KIND_CONFIG ?= k8s/kind.yaml
# a node image; kind's own if none is named
export KIND_IMAGE ?=
export REGISTRY_IMAGE ?= registry:2
# of the registry on this machine; the container is $(KIND_CLUSTER)-registry
export REGISTRY_PORT ?= 5001
export GPUS ?= 4
export RELEASE ?= study
export HELM ?= helm
# in place of the images that the chart and k8s/services name; images of this machine go into the cluster with kind-load
export MINIO_IMAGE ?=
export SEAWEEDFS_IMAGE ?=
export POSTGRESQL_IMAGE ?=
# Kueue's chart, an OCI address or a folder, its version, and an image of this machine in place of the chart's
export KUEUE_CHART ?= oci://registry.k8s.io/kueue/charts/kueue
export KUEUE_VERSION ?= 0.17.0
export KUEUE_IMAGE ?=

.PHONY: kind-up kind-gpus kind-load kind-services kind-install kind-kueue kind-down

kind-up: ## create a kind cluster with a registry and made-up GPUs (KIND_IMAGE, KIND_CONFIG, KIND_CLUSTER, REGISTRY_IMAGE, REGISTRY_PORT, GPUS)
	@k8s/kind.sh up

kind-gpus: ## let the nodes claim to have GPUS GPUs
	@k8s/kind.sh gpus

kind-load: ## build the images and bring what changed into the cluster
	@k8s/kind.sh need docker kind
	@$(MAKE) --no-print-directory images REGISTRY=localhost:$(REGISTRY_PORT) TAG=$(or $(TAG),dev) PUSH=1
	@k8s/kind.sh load

kind-services: ## install a PostgreSQL and a MinIO outside of the chart, as for a study with its own services
	@k8s/kind.sh services

kind-install: ## install the chart with k8s/kind-values.yaml (RELEASE, HELM_ARGS, MINIO_IMAGE, SEAWEEDFS_IMAGE, POSTGRESQL_IMAGE)
	@k8s/kind.sh install $(if $(TAG),--set image.tag=$(TAG)) $(HELM_ARGS)

kind-kueue: ## install Kueue, and the queue `research` with a quota of one GPU (KUEUE_CHART, KUEUE_VERSION, KUEUE_IMAGE)
	@k8s/kueue.sh

kind-down: ## remove the cluster and its registry
	@k8s/kind.sh down
