#!/usr/bin/env bash
# What `make kind-*` runs; k8s/kind.mk has the variables. Every step may be repeated.
set -euo pipefail
cd "$(dirname "$0")/.."
kubectl=(kubectl --context "kind-$KIND_CLUSTER")
registry=$KIND_CLUSTER-registry # not kind-registry, which kind's own recipe names and other projects share

need() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null && continue
    case $program in
      docker) echo "docker is not on PATH: https://docs.docker.com/engine/install" ;;
      kind) echo "kind (0.27 or newer) is not on PATH: https://kind.sigs.k8s.io/docs/user/quick-start/#installation" ;;
      kubectl) echo "kubectl is not on PATH: https://kubernetes.io/docs/tasks/tools" ;;
      *) echo "$program is not on PATH: https://helm.sh/docs/intro/install (3.19 or newer)" ;;
    esac >&2
    exit 2
  done
  [[ " $* " != *" docker "* ]] || docker info >/dev/null 2>&1 || { echo "docker does not answer: start it (docker info says why)" >&2; exit 2; }
}

nodes() { kind get nodes --name "$KIND_CLUSTER"; }

# kind's own recipe: a registry on kind's network, which nodes and this machine know by the same name
up() {
  need docker kind kubectl
  if ! kind get clusters 2>/dev/null | grep -qx "$KIND_CLUSTER"; then
    kind create cluster --name "$KIND_CLUSTER" --config "$KIND_CONFIG" ${KIND_IMAGE:+--image "$KIND_IMAGE"}
  fi
  if [ "$(docker inspect -f '{{.State.Running}}' "$registry" 2>/dev/null)" != true ]; then
    docker rm -f "$registry" >/dev/null 2>&1 || true
    docker run -d --restart=always --network kind -p "127.0.0.1:$REGISTRY_PORT:5000" --name "$registry" "$REGISTRY_IMAGE" >/dev/null || {
      echo "if the port $REGISTRY_PORT is another registry's, take another for all of make kind-*: REGISTRY_PORT=5002" >&2
      exit 2
    }
  fi
  local node certs=/etc/containerd/certs.d/localhost:$REGISTRY_PORT
  for node in $(nodes); do
    docker exec "$node" mkdir -p "$certs"
    docker exec -i "$node" tee "$certs/hosts.toml" >/dev/null <<<"[host.\"http://$registry:5000\"]"
  done
  gpus
  "${kubectl[@]}" apply -f k8s/namespace.yaml
}

# an extended resource that no device stands behind: enough to see which Pods hold a GPU, and when
gpus() {
  need docker kind kubectl
  local node
  for node in $(nodes); do
    "${kubectl[@]}" patch node "$node" --subresource=status --type=json \
      -p "[{\"op\": \"add\", \"path\": \"/status/capacity/nvidia.com~1gpu\", \"value\": \"$GPUS\"}]"
  done
}

load() {
  local image images=()
  for image in "$MINIO_IMAGE" "$SEAWEEDFS_IMAGE" "$POSTGRESQL_IMAGE"; do
    [ -z "$image" ] || ! docker image inspect "$image" >/dev/null 2>&1 || images+=("$image")
  done
  [ ${#images[@]} = 0 ] || kind load docker-image --name "$KIND_CLUSTER" "${images[@]}"
}

services() {
  need kubectl
  "${kubectl[@]}" apply -f k8s/namespace.yaml
  if ! "${kubectl[@]}" -n tailfill get secret services >/dev/null 2>&1; then
    local s3 db
    s3=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n') db=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    # through a pipe: every user of this machine can read a command's arguments
    "${kubectl[@]}" -n tailfill create secret generic services --from-env-file=/dev/stdin <<-KEYS
	AWS_ACCESS_KEY_ID=tailfill
	AWS_SECRET_ACCESS_KEY=$s3
	POSTGRES_PASSWORD=$db
	DATABASE_URL=postgresql://tailfill:$db@services-postgresql:5432/tailfill
	KEYS
  fi
  sed "${MINIO_IMAGE:+s|image: .*|image: $MINIO_IMAGE|}" k8s/services/minio.yaml | "${kubectl[@]}" apply -f -
  sed "${POSTGRESQL_IMAGE:+s|image: .*|image: $POSTGRESQL_IMAGE|}" k8s/services/postgresql.yaml | "${kubectl[@]}" apply -f -
  "${kubectl[@]}" -n tailfill rollout status deployment/services-minio deployment/services-postgresql --timeout 5m
}

install() {
  need kubectl "$HELM"
  "${kubectl[@]}" apply -f k8s/namespace.yaml
  # as a file, not by --set, which a file in HELM_ARGS could not overrule
  sed "s|registry: localhost:.*|registry: localhost:$REGISTRY_PORT|" k8s/kind-values.yaml |
    "$HELM" upgrade --install "$RELEASE" helm/ --kube-context "kind-$KIND_CLUSTER" --namespace tailfill -f - \
    ${MINIO_IMAGE:+--set "minio.image=$MINIO_IMAGE"} ${SEAWEEDFS_IMAGE:+--set "seaweedfs.image=$SEAWEEDFS_IMAGE"} \
    ${POSTGRESQL_IMAGE:+--set "postgresql.image=$POSTGRESQL_IMAGE"} "$@"
}

down() {
  need docker kind
  kind delete cluster --name "$KIND_CLUSTER"
  docker rm -fv "$registry" >/dev/null 2>&1 || true
}

"$@"
