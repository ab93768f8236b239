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
{{- $own := list "PIE_GROUP" "PIE_RANK" "PIE_WORLD_SIZE" "PIE_ETCD" "PIE_MODEL" "PIE_DEVICE" "PIE_LISTEN" "PIE_PEER_LISTEN" "PIE_ADVERTISE" "PIE_WORKER_LISTEN" "PIE_COLLECTIVE_LISTEN" "PIE_METRICS_LISTEN" "PIE_DRAIN_GRACE" "PIE_LOG" "PIE_LOG_FORMAT" "PIE_OTLP" "PIE_TRACE_SAMPLE" }}
{{- range $setting, $_ := (index $.Values $role).settings }}
{{- if or (has $setting $own) (regexMatch "^PIE_(TLS|INTERNAL|TOKEN|CA|CLIENT|POOL)" $setting) }}
{{- fail (printf "%s.settings: the chart sets %s itself, from the value that is meant for it" $role $setting) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq .Values.worker.layout "pod") (gt (int .Values.worldSize) 16) }}
{{- fail (printf "worker.layout: pod puts all ranks into one pod, and worldSize is %v: use worker.layout=lws or pods" .Values.worldSize) }}
{{- end }}
{{- end -}}
