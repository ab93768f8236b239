{{/* What values.schema.json cannot say: values that contradict each other or the cluster. */}}

{{- define "pie-pool.refusals" -}}
{{- $gpu := .Values.gpu -}}
{{- if and $gpu.enabled (eq $gpu.allocation "claim") (semverCompare "<1.34.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "gpu.allocation: claim needs Kubernetes 1.34 or newer, this is %s: set gpu.allocation=plugin" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- with .Values.router.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- fail (printf "router.autoscaling: minReplicas (%v) is above maxReplicas (%v)" .minReplicas .maxReplicas) }}
{{- end }}
{{- end }}
{{- range $role := list "router" "worker" }}
{{- $own := list "PIE_GROUP" "PIE_RANK" "PIE_WORLD_SIZE" "PIE_ETCD" "PIE_MODEL" "PIE_FIM" "PIE_NEXT_EDIT" "PIE_DEVICE" "PIE_LISTEN" "PIE_PEER_LISTEN" "PIE_ADVERTISE" "PIE_WORKER_LISTEN" "PIE_COLLECTIVE_LISTEN" "PIE_METRICS_LISTEN" "PIE_DRAIN_GRACE" "PIE_CONNECTION_AGE" "PIE_REPAIR" "PIE_REPAIR_WINDOW" "PIE_FREE_ROWS" "PIE_ACK" "PIE_KV_SPILL" "PIE_KV_SPILL_SIZE" "PIE_LOG" "PIE_LOG_FORMAT" "PIE_OTLP" "PIE_TRACE_SAMPLE" }}
{{- range $setting, $_ := (index $.Values $role).settings }}
{{- if or (has $setting $own) (regexMatch "^PIE_(TLS|INTERNAL|TOKEN|CA|CLIENT|POOL)" $setting) }}
{{- fail (printf "%s.settings: the chart sets %s itself, from the value that is meant for it" $role $setting) }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.etcd.enabled }}
{{- $etcd := printf "%s-etcd" (include "pie-pool.name" .) }}
{{- $there := lookup "apps/v1" "StatefulSet" .Release.Namespace $etcd }}
{{- if and $there (ne (int $there.spec.replicas) (int .Values.etcd.replicas)) }}
{{- fail (printf "etcd.replicas: there are %v, and an upgrade cannot make them %v: members that are new do not find those that know each other. Delete the StatefulSet %s and its claims first: what etcd kept is written again (docs/kubernetes.md)" $there.spec.replicas .Values.etcd.replicas $etcd) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.worker.layout "pod") (gt (int .Values.worldSize) 16) }}
{{- fail (printf "worker.layout: pod puts all ranks into one pod, and worldSize is %v: use worker.layout=lws or pods" .Values.worldSize) }}
{{- end }}
{{- end -}}
