{{/* Names, labels and what all pods share. */}}

{{- define "pie-pool.name" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which pods are chosen: (list $ "router") */}}
{{- define "pie-pool.selector" -}}
app.kubernetes.io/name: pie-pool
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "pie-pool.labels" -}}
{{ include "pie-pool.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* (list $ SUFFIX) */}}
{{- define "pie-pool.image" -}}
{{- $root := index . 0 -}}
{{- $image := $root.Values.image -}}
{{- with ternary $image.cudaDigest $image.digest (eq (index . 1) "-cuda") -}}
{{- printf "%s@%s" $image.repository . -}}
{{- else -}}
{{- printf "%s:%s%s" $image.repository (default $root.Chart.AppVersion $image.tag) (index . 1) -}}
{{- end -}}
{{- end -}}

{{/* All addresses of a pod, to listen on; and its own address. Both as they stand before a port. */}}
{{- define "pie-pool.anywhere" -}}
{{ ternary "[::]" "0.0.0.0" (eq .Values.ipFamily "IPv6") }}
{{- end -}}

{{- define "pie-pool.podAddress" -}}
{{ ternary "[$(POD_IP)]" "$(POD_IP)" (eq .Values.ipFamily "IPv6") }}
{{- end -}}

{{/* g0,g1,… */}}
{{- define "pie-pool.groups" -}}
{{- range $i := until (int .Values.groups) }}{{ if $i }},{{ end }}g{{ $i }}{{ end -}}
{{- end -}}

{{- define "pie-pool.etcd" -}}
{{- if .Values.etcd.enabled -}}
{{- $service := printf "%s-etcd" (include "pie-pool.name" .) -}}
{{- range $i := until (int .Values.etcd.replicas) -}}
{{- if $i }},{{ end }}http://{{ $service }}-{{ $i }}.{{ $service }}.{{ $.Release.Namespace }}.svc:2379
{{- end -}}
{{- else -}}
{{- join "," .Values.etcd.endpoints -}}
{{- end -}}
{{- end -}}

{{/* Pods run as nobody in particular, and may nothing: the Pod Security level `restricted`. */}}
{{- define "pie-pool.podSecurity" -}}
serviceAccountName: {{ include "pie-pool.name" . }}
automountServiceAccountToken: false
# A service's variables would be taken for settings.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "pie-pool.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where a pod may run: the values of its role. */}}
{{- define "pie-pool.scheduling" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Pods of a role spread over these, as far as there is room: (list $ "router" (list KEY…)) */}}
{{- define "pie-pool.spread" -}}
topologySpreadConstraints:
{{- range index . 2 }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "pie-pool.selector" $ | nindent 8 }}
{{- end }}
{{- end -}}

{{- define "pie-pool.downward" -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end -}}

{{/* Environment of every process that serves. */}}
{{- define "pie-pool.env" -}}
- {name: PIE_WORLD_SIZE, value: {{ .Values.worldSize | quote }}}
- {name: PIE_ETCD, value: {{ include "pie-pool.etcd" . | quote }}}
- {name: PIE_LOG, value: {{ .Values.log.filter | quote }}}
- {name: PIE_LOG_FORMAT, value: {{ .Values.log.format }}}
{{- with .Values.traces.otlp }}
- {name: PIE_OTLP, value: {{ . | quote }}}
- {name: PIE_TRACE_SAMPLE, value: {{ $.Values.traces.sample | quote }}}
{{- end }}
{{- if ne .Values.model.source "embedded" }}
- {name: PIE_MODEL, value: {{ include "pie-pool.modelPath" . }}}
{{- end }}
{{- end -}}

{{- define "pie-pool.settings" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{/* Asks /PATH of the metrics port, which is plain whatever TLS does: (list "/healthz" "metrics") */}}
{{- define "pie-pool.httpProbe" -}}
httpGet: {path: {{ index . 0 }}, port: {{ index . 1 }}}
{{- end -}}

{{/* gRPC health of the port, or, where that speaks TLS, /readyz of the metrics port: (list SOURCE-OF-TLS PORT METRICS) */}}
{{- define "pie-pool.readyProbe" -}}
{{- if eq (index . 0) "none" -}}
grpc: {port: {{ index . 1 }}}
{{- else -}}
{{- include "pie-pool.httpProbe" (list "/readyz" (index . 2)) }}
{{- end -}}
{{- end -}}

{{/* Peers of network policies: the pods of a role, (list $ "router"); a namespace. */}}
{{- define "pie-pool.from" -}}
- podSelector:
    matchLabels: {{- include "pie-pool.selector" . | nindent 6 }}
{{- end -}}

{{- define "pie-pool.fromNamespace" -}}
- namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ . }}}
{{- end -}}
