{{- /* Labels that select a component's Pods. Arguments: the root and the component's name. */}}
{{- define "tailfill.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* Labels of the objects that Helm installs. Arguments: the root and the component's name. */}}
{{- define "tailfill.labels" -}}
{{- $root := index . 0 -}}
{{ include "tailfill.selector" . }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* Reference of one of our images. Arguments: the root and the image's name. */}}
{{- define "tailfill.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.registry }}/tailfill/{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{- /* The study as JSON, since YAML would have 1e-05, which other readers take for a string. */}}
{{- define "tailfill.study" -}}
{{- .Values.study | default (.Files.Get "files/demo-study.yaml" | fromYaml) | toJson -}}
{{- end }}

{{- /* Digest of the study and of `data.revision`, by which control and NOTES tell the Jobs of this study from those of an earlier one. */}}
{{- define "tailfill.studyDigest" -}}
{{- printf "%d %s" (int .Values.data.revision) (include "tailfill.study" .) | sha256sum | trunc 16 -}}
{{- end }}

{{- define "tailfill.studyConfigMap" -}}
{{ .Release.Name }}-study-{{ include "tailfill.study" . | sha256sum | trunc 8 }}
{{- end }}

{{- define "tailfill.credentials" -}}
{{ .Release.Name }}-credentials
{{- end }}

{{- /* Name of the Secret with the keys for S3; empty if the Pods use a role instead. */}}
{{- define "tailfill.s3Secret" -}}
{{ .Values.s3.existingSecret | default (.Values.minio.enabled | ternary (include "tailfill.credentials" .) "") }}
{{- end }}

{{- define "tailfill.databaseSecret" -}}
{{ .Values.database.existingSecret | default (include "tailfill.credentials" .) }}
{{- end }}

{{- /* An environment variable from the key of the same name in a Secret. Arguments: the variable and the Secret. */}}
{{- define "tailfill.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ index . 1 | quote }}, key: {{ index . 0 }}}}
{{- end }}

{{- /* Fails if values contradict each other; values.schema.json says what each may be. */}}
{{- define "tailfill.check" -}}
{{- if gt (len .Release.Name) 40 }}
{{- fail (printf "the release's name %q is longer than 40 characters, which the names of its Jobs have no room for" .Release.Name) }}
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" .Release.Name) }}
{{- fail (printf "the release's name %q must begin with a letter and hold only small letters, digits and hyphens within: Services are named after it" .Release.Name) }}
{{- end }}
{{- with .Values }}
{{- if not .image.registry }}
{{- fail "image.registry is empty, so that images would come from whoever is `tailfill` on Docker Hub: name your registry, or localhost (the default) for images that were loaded into the nodes" }}
{{- end }}
{{- if and .minio.enabled .s3.endpoint }}
{{- fail "s3.endpoint names another server than the chart's own MinIO: set minio.enabled=false" }}
{{- end }}
{{- if not (or .minio.enabled .s3.store) }}
{{- fail "minio.enabled=false needs s3.store (s3://bucket/prefix) and s3.existingSecret (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a role (serviceAccount.annotations)" }}
{{- end }}
{{- if not (or .postgresql.enabled .database.existingSecret) }}
{{- fail "postgresql.enabled=false needs database.existingSecret (DATABASE_URL)" }}
{{- end }}
{{- end }}
{{- end }}
