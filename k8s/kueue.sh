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
  kubectl --context "$context" -n tailfill apply -f k8s/kueue/queue.yaml && applied=yes && break
  sleep 2
done
# an API that does not answer keeps every deleted namespace for ever; nothing here uses this one, which lists what waits in a queue
visibility=(v1beta1.visibility.kueue.x-k8s.io v1beta2.visibility.kueue.x-k8s.io)
kubectl --context "$context" wait --for=condition=Available --timeout=60s apiservice "${visibility[@]}" ||
  kubectl --context "$context" delete apiservice --ignore-not-found "${visibility[@]}"
[ -z "${applied:-}" ] || exit 0
echo "Kueue does not take its queues: kubectl -n kueue-system logs deployment/kueue-controller-manager says why" >&2
exit 1
