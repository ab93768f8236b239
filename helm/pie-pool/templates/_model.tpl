{{/* Where the model's files come from. */}}

{{- define "pie-pool.modelPath" -}}
{{- if eq .Values.model.source "hub" -}}
/models/{{ base .Values.model.hub.repository }}
{{- else -}}
{{- printf "/models/%s" .Values.model.path | trimSuffix "/" -}}
{{- end -}}
{{- end -}}

{{- define "pie-pool.modelVolume" -}}
{{- $model := .Values.model -}}
{{- if eq $model.source "pvc" }}
- name: model
  persistentVolumeClaim: {claimName: {{ $model.claim }}, readOnly: true}
{{- else if eq $model.source "hostPath" }}
- name: model
  hostPath: {path: {{ $model.hostPath | quote }}, type: Directory}
{{- else if and (eq $model.source "hub") $model.hub.claim }}
- name: model
  persistentVolumeClaim: {claimName: {{ $model.hub.claim }}}
{{- else if eq $model.source "hub" }}
- name: model
  emptyDir: {sizeLimit: {{ $model.hub.size }}}
{{- end }}
{{- if eq $model.source "hub" }}
- {name: tmp, emptyDir: {}}
{{- end }}
{{- end -}}

{{- define "pie-pool.modelMount" -}}
{{- if ne .Values.model.source "embedded" }}
- {name: model, mountPath: /models, readOnly: true}
{{- end }}
{{- end -}}

{{/* Downloads the files that match before the pod starts; what is there already is kept: (list $ (list PATTERN…)) */}}
{{- define "pie-pool.modelDownload" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.model.source "hub" }}
{{- $hub := $root.Values.model.hub }}
initContainers:
  - name: download
    image: {{ $hub.image }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args:
      - {{ $hub.repository }}
      - --revision={{ $hub.revision }}
      - --local-dir={{ include "pie-pool.modelPath" $root }}
      {{- range index . 1 }}
      - --include={{ . }}
      {{- end }}
    env:
      - {name: HF_HOME, value: /tmp/hub}
      {{- with $hub.endpoint }}
      - {name: HF_ENDPOINT, value: {{ . | quote }}}
      {{- end }}
      {{- if $hub.tokenSecret.name }}
      - name: HF_TOKEN
        valueFrom: {secretKeyRef: {name: {{ $hub.tokenSecret.name }}, key: {{ $hub.tokenSecret.key }}}}
      {{- end }}
    resources:
      requests: {cpu: 500m, memory: 512Mi}
      limits: {memory: 2Gi}
    {{- include "pie-pool.containerSecurity" $root | nindent 4 }}
    volumeMounts:
      - {name: model, mountPath: /models}
      - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end -}}
