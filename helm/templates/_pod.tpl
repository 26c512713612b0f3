{{- /*
Security context of every Pod of ours, which satisfies the Pod Security Standard "restricted". Arguments: the root, and a dict with the key
`user` if the image must run as a user of its own. If `podSecurity.runAsUser` is null, no user is set, since the cluster assigns one.
*/}}
{{- define "tailfill.podSecurity" -}}
{{- $root := index . 0 -}}
{{- $user := $root.Values.podSecurity.runAsUser -}}
runAsNonRoot: true
{{- if $user }}
{{- $user = int64 (get (index . 1) "user" | default $user) }}
runAsUser: {{ $user }}
runAsGroup: {{ $user }}
fsGroup: {{ $user }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch # else each start would change the owner of all files, which takes long on a large volume
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tailfill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Settings that decide on which node a Pod runs. Argument: the part of the values that has them. */}}
{{- define "tailfill.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Environment variables of control and of every stage: the store, and the folders for temporary files. Arguments: the root, and the folder of the
cache. */}}
{{- define "tailfill.env" -}}
{{- $cache := index . 1 -}}
{{- with index . 0 -}}
- {name: TAILFILL_STORE, value: {{ .Values.s3.store | default "s3://tailfill" | quote }}}
{{- $own := include "tailfill.ownStore" . }}
{{- if $own }}
- {name: AWS_ENDPOINT_URL_S3, value: "http://{{ include "tailfill.name" . }}-{{ $own }}:9000"}
{{- else if .Values.s3.endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ .Values.s3.endpoint | quote }}}
{{- end }}
- {name: AWS_REGION, value: {{ .Values.s3.region | quote }}}
{{- with include "tailfill.s3Secret" . }}
{{ include "tailfill.secretEnv" (list "AWS_ACCESS_KEY_ID" .) }}
{{ include "tailfill.secretEnv" (list "AWS_SECRET_ACCESS_KEY" .) }}
{{- if not $own }}
- name: AWS_SESSION_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: AWS_SESSION_TOKEN, optional: true}}
{{- end }}
{{- end }}
{{- if or .Values.s3.caSecret .Values.s3.caConfigMap }}
- {name: TAILFILL_CA_FILE, value: /etc/tailfill/ca/ca.crt}
{{- end }}
{{- if ne .Values.s3.addressing "path" }}
- {name: TAILFILL_S3_ADDRESSING, value: {{ .Values.s3.addressing }}}
{{- end }}
- {name: TAILFILL_CACHE, value: {{ $cache }}}
- {name: TMPDIR, value: /tmp}
- {name: HOME, value: /tmp}
{{- end }}
{{- end }}

{{- /* Environment variables of the database, for the components that need it. */}}
{{- define "tailfill.databaseEnv" -}}
{{- if .Values.postgresql.enabled -}}
{{ include "tailfill.secretEnv" (list "POSTGRES_PASSWORD" (include "tailfill.databaseSecret" .)) }}
- {name: DATABASE_URL, value: "postgresql://tailfill:$(POSTGRES_PASSWORD)@{{ include "tailfill.name" . }}-postgresql:5432/tailfill"}
{{- else -}}
{{- with .Values.database }}
{{- include "tailfill.secretEnv" (list "DATABASE_URL" .existingSecret .secretKey) }}
{{- if or .caSecret .caConfigMap }}
- {name: PGSSLROOTCERT, value: /etc/tailfill/database/ca.crt}
- {name: PGSSLMODE, value: verify-full} # unless the URL has an sslmode
{{- end }}
{{- if .clientSecret }}
- {name: PGSSLCERT, value: /etc/tailfill/database/tls.crt}
- {name: PGSSLKEY, value: /etc/tailfill/database/tls.key}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tailfill.databaseMount" -}}
{{- if include "tailfill.databaseVolume" . }}
- {name: database, mountPath: /etc/tailfill/database, readOnly: true}
{{- end }}
{{- end }}

{{- /* Certificates for PostgreSQL, for the components that need it. libpq accepts a key of root's that the Pod's group may read. */}}
{{- define "tailfill.databaseVolume" -}}
{{- with .Values.database }}
{{- if or .caSecret .caConfigMap .clientSecret }}
- name: database
  projected:
    defaultMode: 0440
    sources:
      {{- with .caSecret }}
      - secret: {name: {{ . | quote }}, items: [{key: ca.crt, path: ca.crt}]}
      {{- end }}
      {{- with .caConfigMap }}
      - configMap: {name: {{ . | quote }}, items: [{key: ca.crt, path: ca.crt}]}
      {{- end }}
      {{- with .clientSecret }}
      - secret: {name: {{ . | quote }}, items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]}
      {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Volume mounts of control and of every stage: temporary files, and the certificate authority of your own S3 server. */}}
{{- define "tailfill.mounts" -}}
- {name: cache, mountPath: /cache}
- {name: tmp, mountPath: /tmp}
{{- if or .Values.s3.caSecret .Values.s3.caConfigMap }}
- {name: ca, mountPath: /etc/tailfill/ca, readOnly: true}
{{- end }}
{{- end }}

{{- /* Volumes of these mounts. Arguments: the root, and the values of the role that may have their sizes. */}}
{{- define "tailfill.volumes" -}}
{{- range $name := list "cache" "tmp" }}
{{- $size := get (index $ 1) (printf "%sSize" $name) }}
{{- $claim := get (index $ 1) (printf "%sClaim" $name) }}
{{- if $claim }}
- {name: {{ $name }}, persistentVolumeClaim: {claimName: {{ $claim | quote }}}}
{{- else }}
- {name: {{ $name }}, emptyDir: {{ empty $size | ternary dict (dict "sizeLimit" $size) | toJson }}}
{{- end }}
{{- end }}
{{- with (index . 0).Values.s3.caSecret }}
- {name: ca, secret: {secretName: {{ . | quote }}, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- with (index . 0).Values.s3.caConfigMap }}
- {name: ca, configMap: {name: {{ . | quote }}, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- end }}

{{- define "tailfill.dataMount" -}}
{{- with .Values.data }}{{ if .claim }}
- {name: data, mountPath: {{ .mountPath | quote }}, readOnly: {{ .readOnly }}}
{{- end }}{{ end }}
{{- end }}

{{- define "tailfill.dataVolume" -}}
{{- with .Values.data }}{{ if .claim }}
- {name: data, persistentVolumeClaim: {claimName: {{ .claim | quote }}, readOnly: {{ .readOnly }}}}
{{- end }}{{ end }}
{{- end }}

{{- define "tailfill.pullSecrets" -}}
{{- $secrets := .Values.image.pullSecrets -}}
{{- range get (.Values.global | default dict) "imagePullSecrets" -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with $secrets | uniq }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Template of a StatefulSet's PersistentVolumeClaim. Arguments: the root, the component and its `storage`. Kubernetes lets no upgrade change it, so its
labels must stay as they are. */}}
{{- define "tailfill.claim" -}}
{{- $storage := index . 2 -}}
metadata:
  name: data
  labels: {{- include "tailfill.selector" . | nindent 4 }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with $storage.className }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources: {requests: {storage: {{ $storage.size }}}}
{{- end }}
