{{- /* Properties of each stage as JSON, by its name. `make generate` writes them from the table of stages. */}}
{{- define "tailfill.table" -}}
{{- .Files.Get "files/stages.json" -}}
{{- end }}

{{- /* Settings of a stage, or of the workers, as JSON: `stages.defaults`, then those of `gpu` if it uses one, then its own; later ones override
earlier ones. Arguments: the root, and the stage's name or `workers`. */}}
{{- define "tailfill.settings" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $own := $name | eq "workers" | ternary $root.Values.workers (index $root.Values.stages $name) -}}
{{- $gpu := mergeOverwrite (deepCopy $root.Values.gpu) (deepCopy ($own.gpu | default dict)) -}}
{{- $onGpu := and $root.Values.gpu.enabled $gpu.enabled (or (eq $name "workers") (index (include "tailfill.table" $root | fromJson) $name "device")) -}}
{{- $settings := deepCopy $root.Values.stages.defaults -}}
{{- if $onGpu -}}
{{- range $key := list "nodeSelector" "tolerations" "priorityClassName" "runtimeClassName" -}}
{{- with index $gpu $key }}{{ $_ := set $settings $key . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $pod := include "tailfill.merged" (list ($settings.podSpec | default dict) ($own.podSpec | default dict)) | fromJson -}}
{{- $settings = mergeOverwrite $settings (deepCopy (omit $own "gpu")) -}}
{{- $_ := set $settings "podSpec" $pod -}}
{{- if and $root.Values.data.claim (eq $name "prepare") }}{{ $_ := set $settings "affinity" (include "tailfill.besideControl" (list $root $settings.affinity) | fromJson) }}{{ end -}}
{{- $_ := set $settings "gpus" (dict) -}}
{{- if $onGpu }}{{ $_ := set $settings "gpus" (dict $gpu.resource (int $gpu.count)) }}{{ end -}}
{{- $_ := set $settings "cuda" (and $onGpu (not $gpu.emulated)) -}}
{{- toJson $settings -}}
{{- end }}

{{- /* Adds to an affinity that the Pod must run on control's node. control mounts the claim as long as the release exists, and a
ReadWriteOnce volume can be mounted on one node only. Arguments: the root and the affinity. */}}
{{- define "tailfill.besideControl" -}}
{{- $root := index . 0 -}}
{{- $affinity := deepCopy (index . 1 | default dict) -}}
{{- $pods := $affinity.podAffinity | default dict -}}
{{- $terms := $pods.requiredDuringSchedulingIgnoredDuringExecution | default list -}}
{{- $control := dict "matchLabels" (include "tailfill.selector" (list $root "control") | fromYaml) -}}
{{- $terms = append $terms (dict "topologyKey" "kubernetes.io/hostname" "labelSelector" $control) -}}
{{- $pods = set $pods "requiredDuringSchedulingIgnoredDuringExecution" $terms -}}
{{- set $affinity "podAffinity" $pods | toJson -}}
{{- end }}

{{- /* Pod of a stage. Arguments: the root, the stage, its settings, and whether it is a tuning worker. */}}
{{- define "tailfill.stagePod" -}}
{{- $root := index . 0 -}}
{{- $stage := index . 1 -}}
{{- $settings := index . 2 -}}
{{- $worker := index . 3 -}}
{{- $kind := index (include "tailfill.table" $root | fromJson) $stage -}}
{{- /* coordinators train nothing, so the image without torch is enough, which prepare and report have too */}}
{{- $small := and (eq $stage "tune") (not $worker) -}}
{{- $image := $small | ternary "slim" $stage -}}
serviceAccountName: {{ include "tailfill.account" (list $root "stage") | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ int $settings.terminationGracePeriodSeconds }}
securityContext: {{- include "tailfill.podSecurity" (list $root dict) | nindent 2 }}
{{- include "tailfill.pullSecrets" $root }}
{{- include "tailfill.placement" $settings }}
containers:
  - name: main
    image: {{ empty $settings.image | ternary (include "tailfill.image" (list $root $image)) (include "tailfill.reference" (list $root $settings.image)) | quote }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: {{ concat (list "--log" "json" "stage" $stage "--config" "/etc/tailfill/task/task.json") ($worker | ternary (list "--worker") list) | toJson }}
    terminationMessagePolicy: FallbackToLogsOnError # shows the error in `kubectl describe`
    securityContext: {{- include "tailfill.containerSecurity" . | nindent 6 }}
    env:
      {{- if $settings.cacheClaim }}
      - {name: TAILFILL_WORKER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tailfill/worker']"}}}
      {{- end }}
      {{- include "tailfill.env" (list $root (empty $settings.cacheClaim | ternary "/cache" "/cache/worker-$(TAILFILL_WORKER)")) | nindent 6 }}
      {{- if $kind.database }}
      {{- include "tailfill.databaseEnv" $root | nindent 6 }}
      {{- end }}
      {{- if not $kind.online }}
      - {name: HF_HUB_OFFLINE, value: "1"}
      {{- else if $root.Values.hub.existingSecret }}
      {{- include "tailfill.secretEnv" (list "HF_TOKEN" $root.Values.hub.existingSecret) | nindent 6 }}
      {{- end }}
      - {name: TAILFILL_GRACE_SECONDS, value: "{{ int $settings.terminationGracePeriodSeconds }}"}
      {{- if $kind.sharded }}
      - {name: TAILFILL_COUNT, value: "{{ int $settings.shards }}"}
      {{- end }}
      - {name: TAILFILL_DEVICE, value: {{ $settings.cuda | ternary "cuda" "cpu" }}} # cuda: if torch cannot use the GPU, the Pod fails instead of computing on the CPU
      {{- if and $settings.threads (not $settings.cuda) }}
      - {name: OMP_NUM_THREADS, value: "{{ int $settings.threads }}"}
      {{- end }}
    resources:
      {{- $resources := $settings.resources }}
      {{- with $settings.gpus }}
      {{- /* only as a limit, since Kubernetes sets an extended resource's request to its limit */}}
      {{- $resources = mergeOverwrite (deepCopy $resources) (dict "limits" .) }}
      {{- end }}
      {{- toYaml $resources | nindent 6 }}
    volumeMounts:
      - {name: task, mountPath: /etc/tailfill/task, readOnly: true}
      - {name: shm, mountPath: /dev/shm}
      {{- include "tailfill.mounts" $root | nindent 6 }}
      {{- if $kind.database }}
      {{- with include "tailfill.databaseMount" $root }}{{ . | trim | nindent 6 }}{{ end }}
      {{- end }}
      {{- if eq $stage "prepare" }}
      {{- with include "tailfill.dataMount" $root }}{{ . | trim | nindent 6 }}{{ end }}
      {{- end }}
volumes:
  {{- if $worker }}
  - {name: task, configMap: {name: {{ include "tailfill.name" $root }}-searches}} # control writes the open searches into it; a worker reads it again and again
  {{- else }}
  - name: task # control writes it into the annotation when it creates the Job
    downwardAPI: {items: [{path: task.json, fieldRef: {fieldPath: "metadata.annotations['tailfill/task']"}}]}
  {{- end }}
  - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ $settings.shmSize | quote }}}}
  {{- include "tailfill.volumes" (list $root $settings) | nindent 2 }}
  {{- if $kind.database }}
  {{- with include "tailfill.databaseVolume" $root }}{{ . | trim | nindent 2 }}{{ end }}
  {{- end }}
  {{- if eq $stage "prepare" }}
  {{- with include "tailfill.dataVolume" $root }}{{ . | trim | nindent 2 }}{{ end }}
  {{- end }}
{{- end }}

{{- /* Job of a stage as JSON, to which control adds name, owner, key and task, or of a tuning worker, to which it adds name, owner and number.
Arguments: the root, and the stage's name or `workers`. */}}
{{- define "tailfill.stageJob" -}}
{{- $root := index . 0 -}}
{{- $worker := eq (index . 1) "workers" -}}
{{- $stage := $worker | ternary "tune" (index . 1) -}}
{{- $settings := include "tailfill.settings" . | fromJson -}}
{{- $queue := $settings.queueName | default $root.Values.kueue.queueName -}}
{{- $name := $worker | ternary "workers" (printf "stages.%s" $stage) -}}
{{- $job := include "tailfill.renderedJob" (list $root $stage $settings $worker $queue) | fromYaml -}}
{{- $template := include "tailfill.podTemplate" (list $job.spec.template $settings $name) | fromYaml -}}
{{- $metadata := include "tailfill.metadata" (list $job.metadata $settings.jobMetadata (printf "%s.jobMetadata" $name)) | fromYaml -}}
{{- $_ := set $job "metadata" $metadata -}}
{{- $_ := set $job.spec "template" $template -}}
{{- toJson $job -}}
{{- end }}

{{- /* That Job without the values `jobMetadata`, `podMetadata`, `podSpec` and `env`. Arguments: the root, the stage, its settings, whether it is a tuning
worker, and its queue. */}}
{{- define "tailfill.renderedJob" -}}
{{- $root := index . 0 -}}
{{- $stage := index . 1 -}}
{{- $settings := index . 2 -}}
{{- $worker := index . 3 -}}
{{- $queue := index . 4 -}}
apiVersion: batch/v1
kind: Job
metadata:
  labels: &labels
    {{- include "tailfill.selector" (list $root $stage) | nindent 4 }}
    app.kubernetes.io/managed-by: tailfill-control
    {{- if $worker }}
    tailfill/role: worker # tells it from the coordinators, which have the same component
    {{- end }}
    {{- with $queue }}
    kueue.x-k8s.io/queue-name: {{ . | quote }}
    {{- end }}
  {{- $partly := and $queue (gt (int $settings.shards) 1) }}
  {{- if or $settings.parallelism $partly }}
  annotations:
    {{- with $settings.parallelism }}
    tailfill/parallelism: "{{ int . }}"
    {{- end }}
    {{- if $partly }}
    kueue.x-k8s.io/job-min-parallelism: "1" # Kueue may start it with fewer Pods than it has indexes
    {{- end }}
  {{- end }}
spec:
  {{- if $queue }}
  suspend: true # until Kueue admits it
  {{- end }}
  {{- if $settings.shards }}
  completionMode: Indexed
  completions: {{ int $settings.shards }}
  parallelism: {{ int $settings.shards }}
  backoffLimitPerIndex: {{ int $settings.backoffLimit }}
  maxFailedIndexes: {{ int $settings.maxFailedIndexes }}
  {{- else }}
  backoffLimit: {{ int $settings.backoffLimit }}
  {{- end }}
  {{- with int $settings.activeDeadlineSeconds }}
  activeDeadlineSeconds: {{ . }}
  {{- end }}
  ttlSecondsAfterFinished: {{ int $settings.ttlSecondsAfterFinished }}
  podFailurePolicy:
    rules: # the first that matches applies; a failure that matches none counts against backoffLimit
      - {action: Ignore, onPodConditions: [{type: DisruptionTarget, status: "True"}]}
      - {action: FailJob, onExitCodes: {containerName: main, operator: In, values: [2]}}
      - {action: Ignore, onExitCodes: {containerName: main, operator: In, values: [143]}} # it was told to end, e.g. by `kubectl delete pod`
  template:
    metadata:
      labels: *labels
    spec:
      restartPolicy: Never
      {{- include "tailfill.stagePod" (list $root $stage $settings $worker) | nindent 6 }}
{{- end }}

{{- define "tailfill.stages" -}}
{{- range $stage, $_ := include "tailfill.table" . | fromJson }}
{{ $stage }}.json: {{ include "tailfill.stageJob" (list $ $stage) | quote }}
{{- end }}
worker.json: {{ include "tailfill.stageJob" (list . "workers") | quote }}
{{- end }}
