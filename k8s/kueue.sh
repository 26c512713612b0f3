#!/usr/bin/env bash
# What `make kind-kueue` runs: Kueue in the kind cluster, by its own chart, and the queue of k8s/kueue/queue.yaml. It may be repeated.
set -euo pipefail
cd "$(dirname "$0")/.."
k8s/kind.sh need kubectl "$HELM"
context=kind-$KIND_CLUSTER
image=()
if [ -n "$KUEUE_IMAGE" ]; then
  k8s/kind.sh need docker kind
  kind load docker-image --name "$KIND_CLUSTER" "$KUEUE_IMAGE"
  manager=controllerManager.manager.image
  image=(--set "$manager.repository=${KUEUE_IMAGE%:*},$manager.tag=${KUEUE_IMAGE##*:},$manager.pullPolicy=IfNotPresent")
fi
"$HELM" upgrade --install kueue "$KUEUE_CHART" --version "$KUEUE_VERSION" --kube-context "$context" --namespace kueue-system --create-namespace \
  --wait --timeout 5m -f k8s/kueue/values.yaml "${image[@]}"
kubectl --context "$context" apply -f k8s/namespace.yaml
# its webhooks answer some seconds after its Pod is ready, once they have their certificate
for _ in $(seq 30); do
  kubectl --context "$context" -n tailfill apply -f k8s/kueue/queue.yaml && exit 0
  sleep 2
done
echo "Kueue does not take its queues: kubectl -n kueue-system logs deployment/kueue-controller-manager says why" >&2
exit 1
