{{- /* What every Pod of ours says; all of it passes the Pod Security Standard "restricted". */}}
{{- define "tailfill.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch # a large volume is not walked through at each start
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tailfill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Where a Pod runs, of `resources`' neighbours in the values. */}}
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

{{- /* The environment that control and every stage share: store, scratch, no downloads. */}}
{{- define "tailfill.env" -}}
- {name: TAILFILL_STORE, value: {{ .Values.s3.store | default "s3://tailfill" | quote }}}
{{- if .Values.minio.enabled }}
- {name: AWS_ENDPOINT_URL_S3, value: "http://{{ .Release.Name }}-minio:9000"}
{{- else if .Values.s3.endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ .Values.s3.endpoint | quote }}}
{{- end }}
- {name: AWS_REGION, value: {{ .Values.s3.region | quote }}}
{{ include "tailfill.secretEnv" (list "AWS_ACCESS_KEY_ID" (include "tailfill.s3Secret" .)) }}
{{ include "tailfill.secretEnv" (list "AWS_SECRET_ACCESS_KEY" (include "tailfill.s3Secret" .)) }}
- {name: TAILFILL_CACHE, value: /cache}
- {name: TMPDIR, value: /tmp}
- {name: HOME, value: /tmp}
{{- end }}

{{- /* The database, for those few that have to do with the search. */}}
{{- define "tailfill.databaseEnv" -}}
{{- if .Values.postgresql.enabled -}}
{{ include "tailfill.secretEnv" (list "POSTGRES_PASSWORD" (include "tailfill.databaseSecret" .)) }}
- {name: DATABASE_URL, value: "postgresql://tailfill:$(POSTGRES_PASSWORD)@{{ .Release.Name }}-postgresql:5432/tailfill"}
{{- else -}}
{{ include "tailfill.secretEnv" (list "DATABASE_URL" .Values.database.existingSecret) }}
{{- end }}
{{- end }}

{{- define "tailfill.scratchMounts" -}}
- {name: cache, mountPath: /cache}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "tailfill.scratchVolumes" -}}
- {name: cache, emptyDir: {}}
- {name: tmp, emptyDir: {}}
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
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A claim for data: the arguments are the root, the component and its `storage`. No label may change later. */}}
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
