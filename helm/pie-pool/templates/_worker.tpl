{{/* The pod of ranks, the same in each layout: (dict "root" $ "ranks" COUNT "group" GROUP "rankLabel" LABEL). It has `ranks` ranks;
     GROUP is (dict "name" NAME) or (dict "label" the pod label with its index); with `rankLabel` a label of the pod says which rank it is. */}}

{{- define "pie-pool.workerPod" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $claims := and $values.gpu.enabled (eq $values.gpu.allocation "claim") -}}
metadata:
  labels:
    {{- include "pie-pool.selector" (list $root "worker") | nindent 4 }}
    {{- with .group.name }}
    pie-pool/group: {{ . }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: rank-0
    {{- with $values.worker.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  {{- include "pie-pool.podSecurity" $root | nindent 2 }}
  {{- include "pie-pool.scheduling" $values.worker | nindent 2 }}
  {{- if eq $values.worker.layout "pod" }}
  {{- include "pie-pool.spread" (list $root "worker" (list "kubernetes.io/hostname")) | nindent 2 }}
  {{- end }}
  {{- if $values.gpu.enabled }}
  {{- with $values.gpu.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- if gt (int .ranks) 1 }}
  # CUDA shares memory of GPUs between processes that see each other.
  shareProcessNamespace: true
  {{- end }}
  {{- end }}
  # The hook below, the rank's own grace, and a while.
  terminationGracePeriodSeconds: {{ add $values.worker.drainTimeoutSeconds 20 }}
  {{- include "pie-pool.modelDownload" (list $root (list "*.json" "*.safetensors")) | nindent 2 }}
  containers:
    {{- range $i := until (int .ranks) }}
    - name: rank-{{ $i }}
      image: {{ include "pie-pool.image" (list $root (ternary "-cuda" "" $values.gpu.enabled)) }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: [worker]
      env:
        {{- include "pie-pool.downward" $root | nindent 8 }}
        {{- if $.group.name }}
        - {name: PIE_GROUP, value: {{ $.group.name }}}
        {{- else }}
        - name: GROUP_INDEX
          valueFrom: {fieldRef: {fieldPath: "metadata.labels['{{ $.group.label }}']"}}
        - {name: PIE_GROUP, value: g$(GROUP_INDEX)}
        {{- end }}
        {{- if $.rankLabel }}
        - name: PIE_RANK
          valueFrom: {fieldRef: {fieldPath: "metadata.labels['{{ $.rankLabel }}']"}}
        {{- else }}
        - {name: PIE_RANK, value: "{{ $i }}"}
        {{- end }}
        # Other pods are told these addresses, and reach them.
        - {name: PIE_WORKER_LISTEN, value: "{{ include "pie-pool.podAddress" $root }}:{{ add 7500 $i }}"}
        - {name: PIE_COLLECTIVE_LISTEN, value: "{{ include "pie-pool.podAddress" $root }}:{{ add 7600 $i }}"}
        - {name: PIE_METRICS_LISTEN, value: "{{ include "pie-pool.anywhere" $root }}:{{ add 9400 $i }}"}
        - {name: PIE_DEVICE, value: {{ if not $values.gpu.enabled }}cpu{{ else if $claims }}{{ ternary "cuda:0" "cuda" (eq (int $.ranks) 1) }}{{ else }}"cuda:0"{{ end }}}
        {{- if and $values.gpu.enabled (not $claims) (gt (int $.ranks) 1) }}
        # Containers of one pod look like one node to NCCL, but cannot open each other's GPUs.
        - {name: NCCL_P2P_DISABLE, value: "1"}
        {{- end }}
        # Once its sessions have moved, a rank need not wait for its owner.
        - {name: PIE_DRAIN_GRACE, value: 5s}
        - {name: XDG_CACHE_HOME, value: /cache/rank-{{ $i }}}
        {{- if $values.worker.kvSpill.volume }}
        - {name: PIE_KV_SPILL, value: /spill/rows}
        - {name: PIE_KV_SPILL_SIZE, value: {{ $values.worker.kvSpill.size }}}
        {{- end }}
        {{- include "pie-pool.env" $root | nindent 8 }}
        {{- include "pie-pool.internalEnv" $root | nindent 8 }}
        {{- include "pie-pool.clientEnv" $root | nindent 8 }}
        {{- include "pie-pool.settings" $values.worker.settings | nindent 8 }}
      ports:
        - {name: control-{{ $i }}, containerPort: {{ add 7500 $i }}}
        - {name: collective-{{ $i }}, containerPort: {{ add 7600 $i }}}
        - {name: metrics-{{ $i }}, containerPort: {{ add 9400 $i }}}
      # The control port opens when the weights are loaded. Kubernetes' gRPC probe cannot speak TLS: then /readyz is asked, which says the same.
      startupProbe:
        {{- include "pie-pool.readyProbe" (list $values.tls.internal.source (add 7500 $i) (printf "metrics-%d" $i)) | nindent 8 }}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: {{ mul $values.worker.startupMinutes 12 }}
      readinessProbe:
        {{- include "pie-pool.readyProbe" (list $values.tls.internal.source (add 7500 $i) (printf "metrics-%d" $i)) | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      # A rank that computes answers late: only one that is silent for two minutes is ended. What hangs in a step its owner sees by itself.
      livenessProbe:
        {{- include "pie-pool.httpProbe" (list "/healthz" (printf "metrics-%d" $i)) | nindent 8 }}
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 6
      lifecycle:
        preStop:
          # The group is that of PIE_GROUP.
          exec: {command: [/usr/local/bin/pie, ctl, drain, --for-restart, --timeout, {{ $values.worker.drainTimeoutSeconds }}s]}
      {{- $resources := deepCopy $values.worker.resources }}
      {{- if $claims }}
      {{- $_ := set $resources "claims" (list (dict "name" "gpus")) }}
      {{- else if $values.gpu.enabled }}
      {{- $_ := set $resources "limits" (merge (dict $values.gpu.resource 1) (default dict $resources.limits)) }}
      {{- end }}
      resources: {{- toYaml $resources | nindent 8 }}
      {{- include "pie-pool.containerSecurity" $root | nindent 6 }}
      volumeMounts:
        - {name: cache, mountPath: /cache}
        - {name: shm, mountPath: /dev/shm}
        {{- if $values.worker.kvSpill.volume }}
        - {name: spill, mountPath: /spill}
        {{- end }}
        {{- include "pie-pool.modelMount" $root | nindent 8 }}
        {{- include "pie-pool.internalMount" $root | nindent 8 }}
        {{- include "pie-pool.clientMount" $root | nindent 8 }}
    {{- end }}
  {{- if $claims }}
  resourceClaims:
    - name: gpus
      resourceClaimTemplateName: {{ include "pie-pool.name" $root }}-gpus
  {{- end }}
  volumes:
    - {name: cache, emptyDir: {}}
    - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ $values.worker.sharedMemory }}}}
    {{- with $values.worker.kvSpill.volume }}
    - name: spill
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- include "pie-pool.modelVolume" $root | nindent 4 }}
    {{- include "pie-pool.internalVolume" (list $root "worker") | nindent 4 }}
    {{- include "pie-pool.clientVolume" $root | nindent 4 }}
{{- end -}}
